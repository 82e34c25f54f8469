//! The opening handshake: RFC 6455, section 4.2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http::header::{
    HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::negotiation::{Rejection, choose, is_upgrade, list, switching};

const VERSION: HeaderValue = HeaderValue::from_static("13");
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether the request asks for a WebSocket (`IsWebSocketRequest`).
pub(crate) fn is_requested(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) && is_upgrade(headers)
}

/// The subprotocol, and the response that says so. A client that names none gets `""`, if that is supported.
pub(crate) fn accept(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(&'static str, Response<String>), Rejection> {
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        let rejection = Rejection::bad_request("unable to upgrade: only WebSocket version 13 is supported");
        return Err(rejection.with(SEC_WEBSOCKET_VERSION, VERSION));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().trim();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(Rejection::bad_request("unable to upgrade: Sec-WebSocket-Key is missing or no key"));
    }
    let wanted = list(headers, &SEC_WEBSOCKET_PROTOCOL);
    let protocol = if wanted.is_empty() {
        supported.iter().copied().find(|it| it.is_empty())
    } else {
        choose(&wanted, supported)
    };
    let protocol = protocol.ok_or_else(|| {
        Rejection::forbidden(format!(
            "unable to upgrade: requested protocol(s) are not supported: [{}]; supports [{}]",
            wanted.join(" "),
            supported.join(" "),
        ))
    })?;
    let mut response = switching(HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(accept_key(key))
        .map_err(|_| Rejection::bad_request("unable to upgrade: Sec-WebSocket-Key is no key"))?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((protocol, response))
}

fn accept_key(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{ACCEPT_SUFFIX}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const SUPPORTED: &[&str] = &["", "channel.k8s.io", "v5.channel.k8s.io"];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let standard = [
            ("connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in standard.iter().chain(pairs) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_key_is_hashed() {
        let all = headers(&[("sec-websocket-protocol", "x, v5.channel.k8s.io")]);
        assert!(is_requested(&all));
        let (protocol, response) = accept(&all, SUPPORTED).unwrap();
        assert_eq!(protocol, "v5.channel.k8s.io");
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    }

    #[test]
    fn no_protocol_is_one_too() {
        let (protocol, response) = accept(&headers(&[]), SUPPORTED).unwrap();
        assert_eq!(protocol, "");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
        assert!(accept(&headers(&[]), &SUPPORTED[1..]).is_err());
    }

    #[test]
    fn rejections_say_why() {
        let reject = |pairs: &[_]| accept(&headers(pairs), SUPPORTED).unwrap_err().into_response();
        let response = reject(&[("sec-websocket-version", "8")]);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["sec-websocket-version"]),
            (400, &VERSION)
        );
        assert_eq!(reject(&[("sec-websocket-key", "short")]).status(), 400);
        let response = reject(&[("sec-websocket-protocol", "v9.channel.k8s.io")]);
        assert_eq!(response.status(), 403);
        assert!(response.body().contains("[v9.channel.k8s.io]; supports"), "{}", response.body());
        assert!(!is_requested(&headers(&[("connection", "close")])));
        assert!(!is_requested(&headers(&[("upgrade", "SPDY/3.1")])));
    }
}
