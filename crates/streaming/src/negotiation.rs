//! What is decided from a request's headers: whether it asks for an upgrade, and in which protocol the two sides talk.
//! After `httpstream.go` and `spdy/upgrade.go` of `k8s.io/streaming`.

use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");

/// A request that cannot be served, and why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Rejection {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What the client is answered: 400 or 403 and a line of text.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(format!("{}\n", self.message));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// `101 Switching Protocols`.
pub(crate) fn switching(upgrade: HeaderValue) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, upgrade);
    response
}

/// Whether the request asks for another protocol (`IsUpgradeRequest`).
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| contains(value, "upgrade"))
}

fn contains(value: &HeaderValue, what: &str) -> bool {
    value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(what))
}

/// The items of headers that are lists separated by commas.
pub(crate) fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(','));
    items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// The first that the client would have and this side supports.
pub(crate) fn choose(wanted: &[String], supported: &[&'static str]) -> Option<&'static str> {
    wanted.iter().find_map(|wanted| supported.iter().find(|it| *it == wanted).copied())
}

/// The protocol inside SPDY (`Handshake`), and the response that says so (`UpgradeResponse`).
pub(crate) fn spdy(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(&'static str, Response<String>), Rejection> {
    if !headers.contains_key(PROTOCOL_VERSION) {
        let message = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request";
        return Err(Rejection::bad_request(message));
    }
    let wanted = list(headers, &PROTOCOL_VERSION);
    if wanted.is_empty() {
        let message = "unable to upgrade: header X-Stream-Protocol-Version holds no valid protocols";
        return Err(Rejection::bad_request(message));
    }
    let Some(protocol) = choose(&wanted, supported) else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            wanted.join(" "),
            supported.join(" "),
        );
        let accepted = supported.iter().map(|it| HeaderValue::from_static(it));
        return Err(accepted.fold(Rejection::forbidden(message), |it, one| it.with(ACCEPTED_VERSIONS, one)));
    };
    let asks_for_spdy = headers.get(UPGRADE).is_some_and(|value| contains(value, "spdy/3.1"));
    if !is_upgrade(headers) || !asks_for_spdy {
        return Err(Rejection::bad_request("unable to upgrade: missing upgrade headers in request"));
    }
    let mut response = switching(SPDY);
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    Ok((protocol, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPPORTED: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io"];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        pairs.iter().map(pair).collect()
    }

    /// The table of `TestHandshake`.
    #[test]
    fn the_client_chooses_among_what_is_supported() {
        for (wanted, expected) in [
            (&["v3.channel.k8s.io"][..], Some("v3.channel.k8s.io")),
            (&["v9.channel.k8s.io", "v4.channel.k8s.io"], Some("v4.channel.k8s.io")),
            (&["v3.channel.k8s.io, v4.channel.k8s.io"], Some("v3.channel.k8s.io")),
            (&["V4.channel.k8s.io"], None),
            (&["a", "b"], None),
            (&["", ","], None),
            (&[], None),
        ] {
            let mut all = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
            for value in wanted {
                all.append(PROTOCOL_VERSION, HeaderValue::from_static(value));
            }
            let chosen = spdy(&all, SUPPORTED).map(|(protocol, _)| protocol).ok();
            assert_eq!(chosen, expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_success_says_what_was_chosen() {
        let all = headers(&[
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        let (_, response) = spdy(&all, SUPPORTED).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(response.headers()["connection"], "Upgrade");
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    }

    #[test]
    fn rejections_say_why() {
        let reject = |pairs: &[_]| spdy(&headers(pairs), SUPPORTED).unwrap_err().into_response();
        assert_eq!(reject(&[("upgrade", "SPDY/3.1")]).status(), 400);
        assert_eq!(reject(&[("x-stream-protocol-version", " ,")]).status(), 400);
        assert_eq!(reject(&[("x-stream-protocol-version", "v4.channel.k8s.io")]).status(), 400);
        let response = reject(&[("x-stream-protocol-version", "v9.channel.k8s.io")]);
        assert_eq!(response.status(), 403);
        let accepted: Vec<_> = response.headers().get_all(ACCEPTED_VERSIONS).iter().collect();
        assert_eq!(accepted, SUPPORTED);
        assert_eq!(
            response.body(),
            "unable to upgrade: unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts \
             [v4.channel.k8s.io v3.channel.k8s.io]\n"
        );
    }
}
