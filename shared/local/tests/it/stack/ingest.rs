//! `lockstep ingest` as a real process, against a running stack.

use std::{path::Path, process::Command};

use local::folder::TempFolder;
use reqwest::Client;
use serde_json::{Value, json};

use super::Stack;
use crate::sigv4;

/// `lockstep ingest` with `--json`: whether all went well, and what it says.
fn ingest(stack: &Stack, data: &Path, folder: &Path) -> (bool, Value) {
    let secret = std::fs::read_to_string(data.join("s3/secret-key")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["ingest", "--json", "--url", &stack.url])
        .arg(folder)
        .env("LOCKSTEP_DATA_DIR", data)
        .env_remove("LOCKSTEP_TOKEN")
        .env("S3_ENDPOINT", &stack.s3)
        .env("S3_ACCESS_KEY_ID", local::s3::ACCESS_KEY)
        .env("S3_SECRET_ACCESS_KEY", secret.trim())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let said = serde_json::from_str(&said);
    (output.status.success(), said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_sent_once_and_what_failed_says_why() {
    let (data, files) = (TempFolder::new().unwrap(), TempFolder::new().unwrap());
    let write = |name: &str, text: &[u8]| {
        let path = files.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("a.txt", b"The spare key lies under the third flowerpot.");
    write("below/b.md", b"# Bees\n\nThe bees live behind the shed.");
    write("below/c.json", br#"{"bees": "behind the shed"}"#);
    write("broken.txt", b"\x00\x01\x02 is no text");
    write(".hidden/c.txt", b"Nobody asked for this.");
    let stack = Stack::up(data.path());
    let (well, said) = ingest(&stack, data.path(), files.path());
    assert!(!well);
    assert_eq!(said["counts"], json!({ "done": 3, "unchanged": 0, "failed": 1 }), "{said}");
    let failed = said["files"].as_array().unwrap().iter().find(|file| file["became"] == "failed").unwrap();
    assert!(failed["name"].as_str().unwrap().ends_with("/broken.txt"), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("can not be read"), "{failed}");

    std::fs::remove_file(files.path().join("broken.txt")).unwrap();
    write("a.txt", b"The spare key lies under the fourth flowerpot.");
    let (well, said) = ingest(&stack, data.path(), files.path());
    assert!(well);
    assert_eq!(said["counts"], json!({ "done": 1, "unchanged": 2, "failed": 0 }), "{said}");
    let (well, said) = ingest(&stack, data.path(), files.path());
    assert!(well);
    assert_eq!(said["counts"], json!({ "done": 0, "unchanged": 3, "failed": 0 }), "{said}");

    // What was so once, and is again: the answers of then do not count.
    write("a.txt", b"The spare key lies under the third flowerpot.");
    let (well, said) = ingest(&stack, data.path(), files.path());
    assert!(well);
    assert_eq!(said["counts"], json!({ "done": 1, "unchanged": 2, "failed": 0 }), "{said}");
    let (_, said) = ingest(&stack, data.path(), files.path());
    assert_eq!(said["counts"], json!({ "done": 0, "unchanged": 3, "failed": 0 }), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_objects_of_a_bucket_are_sent_once() {
    let data = TempFolder::new().unwrap();
    let stack = Stack::up(data.path());
    let secret = std::fs::read_to_string(data.path().join("s3/secret-key")).unwrap();
    let host = stack.s3.strip_prefix("http://").unwrap();
    for (path, text) in [
        ("archive/a%20%26%20b.txt", "The spare key lies under the third flowerpot."),
        ("archive/below/c.md", "# Bees\n\nThe bees live behind the shed."),
        ("elsewhere/d.txt", "Nobody asked for this."),
    ] {
        let url = sigv4::presign("PUT", host, &format!("/lockstep-inbox/{path}"), local::s3::ACCESS_KEY, &secret);
        let put = Client::new().put(url).body(text).send().await.unwrap();
        assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    }
    let bucket = Path::new("s3://lockstep-inbox/archive/");
    let (well, said) = ingest(&stack, data.path(), bucket);
    assert!(well, "{said}");
    assert_eq!(said["counts"], json!({ "done": 2, "unchanged": 0, "failed": 0 }), "{said}");
    assert_eq!(said["files"][0]["name"], "s3://lockstep-inbox/archive/a & b.txt");
    let (well, said) = ingest(&stack, data.path(), bucket);
    assert!(well, "{said}");
    assert_eq!(said["counts"], json!({ "done": 0, "unchanged": 2, "failed": 0 }), "{said}");
}
