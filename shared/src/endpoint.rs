//! HTTP endpoints of models: where one is, its key, and what may be said of its refusals. Asking again is its users' affair:
//! it depends on what a call costs.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use secrecy::ExposeSecret;

use crate::{certificate, secrets::Credential};

/// What of a refusal's body goes into an error.
const DETAIL_CHARS_MAX: usize = 300;

/// An endpoint. Connects when first used.
#[derive(Debug)]
pub struct Endpoint {
    url: Url,
    api_key: Option<Credential>,
    client: Client,
}

/// An endpoint that can not be. Says nothing of the URL itself: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The base URL is none.
    #[error("the base URL is not a URL")]
    Url,
    /// It carries a user name or password: it would be logged. A key belongs into the setting for it.
    #[error("the base URL carries credentials")]
    Credentials,
    /// There is no HTTP client: TLS could not be set up.
    #[error("there is no HTTP client")]
    Client(#[from] reqwest::Error),
}

impl Endpoint {
    /// The endpoint at `{base_url}/{path}`, with its key, sent as `Authorization: Bearer`. Redirects are not followed: the
    /// key would go along.
    ///
    /// # Errors
    /// See [`InvalidEndpoint`].
    pub fn new(
        base_url: &str,
        path: &str,
        api_key: Option<Credential>,
        connect_timeout: Duration,
    ) -> Result<Self, InvalidEndpoint> {
        let url =
            Url::parse(&format!("{}/{path}", base_url.trim_end_matches('/'))).map_err(|_| InvalidEndpoint::Url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Credentials);
        }
        let client = Client::builder().connect_timeout(connect_timeout).redirect(redirect::Policy::none()).build()?;
        Ok(Self { url, api_key, client })
    }

    /// A `POST`, still without body and key; for [`Self::send`].
    pub fn post(&self) -> RequestBuilder {
        self.client.post(self.url.clone())
    }

    /// Sends it with the key. One that is refused (401, 403) may have been rotated: then it is read again, and the request is
    /// sent once more.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let Some(key) = &self.api_key else { return certificate::watched("model", request.send().await) };
        let again = request.try_clone();
        let shown = key.now();
        let response = certificate::watched("model", request.bearer_auth(shown.expose_secret()).send().await)?;
        let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        match again {
            Some(again) if refused && key.renew(&shown).await => {
                again.bearer_auth(key.now().expose_secret()).send().await
            }
            _ => Ok(response),
        }
    }

    /// The start of a refusal's body, for an error; empty when it can not be read.
    pub async fn detail(&self, refusal: Response) -> String {
        self.redact(&refusal.text().await.unwrap_or_default())
    }

    /// Some endpoints repeat the key when they refuse it.
    fn redact(&self, body: &str) -> String {
        let key = self.api_key.as_ref().map(Credential::now);
        let key = key.as_deref().map(ExposeSecret::expose_secret).filter(|key| !key.is_empty());
        let body = key.map_or_else(|| body.to_owned(), |key| body.replace(key, "[key]"));
        body.chars().take(DETAIL_CHARS_MAX).collect()
    }
}

/// How long an endpoint asks to be left alone, as seconds or as a date:
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, routing::post};
    use reqwest::header::{AUTHORIZATION, HeaderValue};
    use secrecy::SecretString;
    use tokio::net::TcpListener;

    use super::*;
    use crate::secrets::{Entry, SecretError, SecretSource};

    fn at(url: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::new(url, "rerank", Some("sesame".into()), Duration::from_secs(1))
    }

    #[test]
    fn a_url_with_credentials_is_refused_without_showing_them() {
        for url in ["https://me:hunter2@example.com/v1", "https://hunter2@example.com", "hunter2"] {
            let error = at(url).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_path_follows_the_base_with_one_slash() {
        for base in ["https://example.com/v1", "https://example.com/v1/"] {
            assert_eq!(at(base).unwrap().url.as_str(), "https://example.com/v1/rerank");
        }
    }

    #[test]
    fn a_refusal_that_repeats_the_key_does_not_show_it_and_is_cut() {
        let detail = at("https://example.com").unwrap().redact(&format!("no such key: sesame {}", "x".repeat(1_000)));
        assert!(detail.starts_with("no such key: [key] x") && detail.chars().count() == DETAIL_CHARS_MAX, "{detail}");
    }

    /// An entry that was rotated.
    #[derive(Debug)]
    struct Rotated;

    #[async_trait::async_trait]
    impl SecretSource for Rotated {
        async fn get(&self, _: &str) -> Result<SecretString, SecretError> {
            Ok("the new key".into())
        }

        async fn get_pending(&self, _: &str) -> Result<Option<SecretString>, SecretError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_key_that_was_rotated_is_read_again_and_the_request_is_sent_once_more() {
        for refusal in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let answer = async move |headers: HeaderMap, body: String| {
                counted.fetch_add(1, Ordering::Relaxed);
                let let_in = headers.get(AUTHORIZATION).is_some_and(|key| key == "Bearer the new key");
                if let_in { (StatusCode::OK, body) } else { (refusal, String::new()) }
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, Router::new().route("/rerank", post(answer))).await });

            let entry = Entry { secrets: Arc::new(Rotated), id: "model-key".to_owned() };
            let key = Credential::new("the old key".into(), Some(entry));
            let endpoint = Endpoint::new(&url, "rerank", Some(key), Duration::from_secs(1)).unwrap();
            for requests in [2, 3] {
                let response = endpoint.send(endpoint.post().body("what is asked")).await.unwrap();
                assert_eq!(
                    (response.status(), response.text().await.unwrap().as_str()),
                    (StatusCode::OK, "what is asked")
                );
                assert_eq!(asked.load(Ordering::Relaxed), requests, "the new key is kept");
            }
        }
    }

    fn wait(value: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(value).unwrap();
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(1));
        let until_later = wait(&later).unwrap().as_secs();
        assert!((57..=60).contains(&until_later), "{until_later} s");
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }
}
