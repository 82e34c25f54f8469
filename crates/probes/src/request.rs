//! From a GET as the user wrote it to requests (upstream: `pkg/probe/http/request.go`), and on over redirects.

use std::fmt;

use bytes::Bytes;
use coracle_core::ports::{HttpGet, Scheme};
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use url::Url;

use crate::connection::Body;
use crate::text::join_host_port;

/// Headers that say how a message is framed: a client does not leave them to the user.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "trailer"];
/// `http.Client` gives up after so many.
const MAX_REDIRECTS: usize = 10;

/// A URL that is asked, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    url: Url,
    /// Host and port as they were written: a default port is shown where it was named.
    authority: String,
    headers: HeaderMap,
    /// The header `Host` that the user wants.
    host: Option<HeaderValue>,
    redirects: usize,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.url.scheme(), self.authority, self.path())
    }
}

/// Where an answer leads.
pub(crate) enum Next {
    /// It is the last one.
    End,
    /// To another URL of the same host.
    Follow(Box<Target>),
}

impl Target {
    /// The first request (`NewRequestForHTTPGetAction`).
    pub(crate) fn new(request: &HttpGet, user_agent: &str) -> Result<Self, String> {
        let authority = join_host_port(&request.host, request.port);
        let base = Url::parse(&format!("{}://{authority}/", request.scheme.as_str()))
            .map_err(|error| format!("host {:?}: {error}", request.host))?;
        let (headers, host) = headers(&request.headers, user_agent)?;
        Ok(Self { url: with_path(&base, &request.path), authority, headers, host, redirects: 0 })
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.url.scheme() == "https" { Scheme::Https } else { Scheme::Http }
    }

    fn path(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// The request as it is sent.
    pub(crate) fn request(&self, http2: bool) -> Result<Request<Body>, String> {
        let authority = match &self.host {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(&self.authority).map_err(|e| e.to_string())?,
        };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.headers_mut() = self.headers.clone();
        let uri = Uri::builder().path_and_query(self.path());
        let uri = if http2 {
            uri.scheme(self.url.scheme()).authority(authority.as_bytes())
        } else {
            request.headers_mut().insert(HOST, authority);
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            uri
        };
        *request.uri_mut() = uri.build().map_err(|error| error.to_string())?;
        Ok(request)
    }

    /// Follows a redirect that stays on the host (`RedirectChecker`).
    pub(crate) fn next<B>(&self, response: &Response<B>) -> Result<Next, String> {
        let redirects = matches!(
            response.status(),
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        );
        let Some(location) = response.headers().get(LOCATION).filter(|_| redirects) else {
            return Ok(Next::End);
        };
        let location = location.to_str().map_err(|_| "failed to parse Location header".to_owned())?;
        let url = self.url.join(location).map_err(|e| format!("failed to parse Location header: {e}"))?;
        if url.host_str() != self.url.host_str() {
            return Ok(Next::End);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("unsupported protocol scheme {:?}", url.scheme()));
        }
        if self.redirects + 1 >= MAX_REDIRECTS {
            return Err(format!("stopped after {MAX_REDIRECTS} redirects"));
        }
        // A URL that names its host means that one.
        let is_absolute = Url::parse(location).is_ok();
        let host = self.host.clone().filter(|_| !is_absolute);
        let authority = url.authority().to_owned();
        let (headers, redirects) = (self.headers.clone(), self.redirects + 1);
        Ok(Next::Follow(Box::new(Self { url, authority, headers, host, redirects })))
    }
}

/// Path and query of this host, whatever else they look like (`formatURL`).
fn with_path(base: &Url, path: &str) -> Url {
    match base.join(path) {
        Ok(joined) if joined.has_host() => {
            let mut url = base.clone();
            url.set_path(joined.path());
            url.set_query(joined.query());
            url
        }
        _ => {
            let mut url = base.clone();
            url.set_path(path);
            url
        }
    }
}

/// The headers as they are sent, and the `Host` that replaces the URL's.
fn headers(
    wanted: &[(String, String)],
    user_agent: &str,
) -> Result<(HeaderMap, Option<HeaderValue>), String> {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("net/http: invalid header field name {name:?}"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("net/http: invalid header field value for {:?}", name.as_str()))?;
        if !FRAMING.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
    let host = headers.remove(HOST).filter(|host| !host.is_empty());
    let agent = match headers.remove(USER_AGENT) {
        Some(own) => own,
        None => HeaderValue::from_str(user_agent).map_err(|e| e.to_string())?,
    };
    if !agent.is_empty() {
        headers.insert(USER_AGENT, agent);
    }
    match headers.get(ACCEPT) {
        None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
        Some(accept) if accept.is_empty() => drop(headers.remove(ACCEPT)),
        Some(_) => {}
    }
    Ok((headers, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(scheme: Scheme, host: &str, port: u16, path: &str, headers: &[(&str, &str)]) -> HttpGet {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        HttpGet { scheme, host: host.into(), port, path: path.into(), headers, http2: false }
    }

    fn target(request: &HttpGet) -> Target {
        Target::new(request, "kube-probe/1.37").unwrap()
    }

    #[test]
    fn urls_are_made_of_parts() {
        use Scheme::{Http, Https};
        let cases = [
            (Http, "localhost", 93, "", "http://localhost:93/"),
            (Https, "localhost", 93, "/path", "https://localhost:93/path"),
            (Http, "localhost", 93, "?foo", "http://localhost:93/?foo"),
            (Https, "localhost", 93, "/path?bar", "https://localhost:93/path?bar"),
            (Http, "10.0.0.1", 80, "foo", "http://10.0.0.1:80/foo"),
            (Https, "fd00::1", 443, "/foo#frag", "https://[fd00::1]:443/foo"),
            (Http, "10.0.0.1", 80, "http://example.com/a?b", "http://10.0.0.1:80/a?b"),
            (Http, "10.0.0.1", 80, "//example.com/a", "http://10.0.0.1:80/a"),
            (Http, "10.0.0.1", 80, "/a b", "http://10.0.0.1:80/a%20b"),
        ];
        for (scheme, host, port, path, expected) in cases {
            let target = target(&get(scheme, host, port, path, &[]));
            assert_eq!(target.to_string(), expected);
            assert_eq!((target.host(), target.port()), (host, port));
        }
    }

    #[test]
    fn headers_follow_upstreams_rules() {
        let sent = |headers: &[(&str, &str)]| {
            let target = target(&get(Scheme::Http, "h", 1, "/", headers));
            let request = target.request(false).unwrap();
            let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
            let mut all: Vec<String> =
                request.headers().iter().map(|(n, v)| format!("{n}: {}", text(v))).collect();
            all.sort();
            all.join("\n")
        };
        let default = "accept: */*\nconnection: close\nhost: h:1\nuser-agent: kube-probe/1.37";
        assert_eq!(sent(&[]), default);
        assert_eq!(sent(&[("Content-Length", "5"), ("Transfer-Encoding", "chunked")]), default);
        assert_eq!(sent(&[("Host", "")]), default);
        assert_eq!(
            sent(&[("Host", "a.example.com"), ("User-Agent", ""), ("Accept", "")]),
            "connection: close\nhost: a.example.com"
        );
        assert_eq!(
            sent(&[("accept", "application/json"), ("Accept", "*/*"), ("User-Agent", "me"), ("X-A", "")]),
            "accept: */*\naccept: application/json\nconnection: close\nhost: h:1\nuser-agent: me\nx-a: "
        );
    }

    #[test]
    fn headers_that_cannot_be_sent_are_named() {
        let error =
            |headers| Target::new(&get(Scheme::Http, "h", 1, "/", headers), "kube-probe/1.37").unwrap_err();
        assert_eq!(error(&[("a b", "c")]), "net/http: invalid header field name \"a b\"");
        // The value may be a secret.
        assert_eq!(error(&[("a", "top\nsecret")]), "net/http: invalid header field value for \"a\"");
    }

    #[test]
    fn http2_names_the_host_in_the_uri() {
        let request = target(&get(Scheme::Http, "h", 1, "/x", &[("Host", "a.example.com")]));
        let request = request.request(true).unwrap();
        assert_eq!(request.uri(), "http://a.example.com/x");
        assert!(!request.headers().contains_key(CONNECTION));
    }
}
