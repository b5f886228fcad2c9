//! A presigned URL, as the AWS SDKs make it.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use std::{fmt::Write, time::SystemTime};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use sha2::{Digest, Sha256};

const REGION: &str = "us-east-1";

/// A URL for one request, for five minutes.
pub(crate) fn presign(method: &str, host: &str, path: &str, access_key: &str, secret: &str) -> String {
    let (day, moment) = now();
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={moment}&X-Amz-Expires=300\
         &X-Amz-SignedHeaders=host",
        format!("{access_key}/{scope}").replace('/', "%2F")
    );
    let request = format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let text = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}", hex(&Sha256::digest(request)));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day.as_str(), REGION, "s3", "aws4_request"] {
        key = hmac(&key, part);
    }
    format!("http://{host}{path}?{query}&X-Amz-Signature={}", hex(&hmac(&key, &text)))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Today, and now, in UTC, in the basic format of ISO 8601.
fn now() -> (String, String) {
    let now = time::OffsetDateTime::from(SystemTime::now());
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let moment = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    (day, moment)
}
