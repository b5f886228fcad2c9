//! Who sends a request, as far as the network knows.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::{HeaderMap, header, request::Parts};
use lambda_http::{RequestExt, request::RequestContext};

/// Characters of a `User-Agent` that are kept: enough to tell a person's devices apart.
const USER_AGENT_CHARS_MAX: usize = 256;

/// A client's address: from the gateway's request context, or from the socket where there is no gateway. Never from a
/// header: anyone can send `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Address(Option<IpAddr>);

impl Address {
    /// The address itself, where it is known.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        self.0
    }

    /// What one client is counted as: an IPv4 address, or the /64 of an IPv6 address, all of which belongs to whoever has
    /// one address of it (RFC 6177). Clients without a known address count as one.
    #[must_use]
    pub fn counted_as(self) -> String {
        match self.0 {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        // `::ffff:192.0.2.1` is 192.0.2.1, also where the socket takes both.
        Self(Some(address.to_canonical()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// Who sends a request, as far as the network knows.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address.
    pub address: Address,
    /// What the client calls itself: a hint for people, and no proof of anything.
    pub user_agent: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { address: address(parts), user_agent: user_agent(&parts.headers) })
    }
}

fn address(parts: &Parts) -> Address {
    let gateway = match parts.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.clone(),
        Some(RequestContext::ApiGatewayV1(context)) => context.identity.source_ip.clone(),
        // No gateway: the socket's other end is the client.
        _ => {
            let socket = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            return socket.map_or(Address(None), |ConnectInfo(address)| address.ip().into());
        }
    };
    gateway.and_then(|text| text.parse::<IpAddr>().ok()).map_or(Address(None), Address::from)
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let text: String = text.chars().filter(|char| !char.is_control()).take(USER_AGENT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use lambda_http::request::LambdaRequest;

    use super::*;

    fn counted(address: &str) -> String {
        Address::from(address.parse::<IpAddr>().unwrap()).counted_as()
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(counted("2001:db8:1:2::1"), counted("2001:db8:1:2:ffff::2"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn the_address_is_the_gateways_or_the_sockets_and_never_a_headers() {
        let forged =
            || Request::builder().header("x-forwarded-for", "203.0.113.9").header("forwarded", "for=203.0.113.9");
        let (parts, ()) = forged().body(()).unwrap().into_parts();
        assert_eq!(address(&parts).ip(), None);

        let (mut parts, ()) = forged().body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4711))));
        assert_eq!(address(&parts).to_string(), "192.0.2.7");

        let event = r#"{"version": "2.0", "routeKey": "$default", "rawPath": "/auth/login", "rawQueryString": "",
            "headers": {"x-forwarded-for": "203.0.113.9", "user-agent": "curl"}, "isBase64Encoded": false,
            "requestContext": {"accountId": "1", "apiId": "a", "requestId": "r", "stage": "$default", "timeEpoch": 1,
                "http": {"method": "POST", "path": "/auth/login", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.8",
                    "userAgent": "curl"}}}"#;
        assert!(matches!(serde_json::from_str::<LambdaRequest>(event).unwrap(), LambdaRequest::ApiGatewayV2(_)));
        let (parts, _) = lambda_http::request::from_str(event).unwrap().into_parts();
        assert_eq!(address(&parts).to_string(), "192.0.2.8");
    }
}
