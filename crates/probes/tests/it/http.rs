use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coracle_core::ports::{HttpGet, MAX_PROBE_OUTPUT, ProbeOutcome, ProbeTransport, Scheme};
use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::servers::{Server, Speaks, answer, redirect};
use crate::{PATIENCE, get, transport, with_headers};

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn probe(request: &HttpGet) -> ProbeOutcome {
    transport().http(request, PATIENCE).await
}

fn success(body: &str) -> ProbeOutcome {
    ProbeOutcome::Success(body.to_owned())
}

fn failed_with(status: u16) -> ProbeOutcome {
    ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
}

/// Every header as `name: value`, one a line.
fn echo(request: &Request<Incoming>) -> String {
    let mut lines: Vec<String> =
        request.headers().iter().map(|(n, v)| format!("{n}: {}\n", v.to_str().unwrap())).collect();
    lines.sort();
    lines.concat()
}

#[tokio::test]
async fn the_status_decides_in_every_way_of_speaking() {
    for speaks in [Speaks::Http1, Speaks::H2c, Speaks::Tls, Speaks::TlsH2] {
        let server = Server::http(speaks, |request| async move {
            let status = request.uri().path().trim_start_matches('/').parse().unwrap();
            answer(status, format!("body of {status}"))
        })
        .await;
        let scheme = if matches!(speaks, Speaks::Tls | Speaks::TlsH2) { Scheme::Https } else { Scheme::Http };
        let of = |status: u16| HttpGet {
            http2: speaks == Speaks::H2c,
            ..get(scheme, server.port, &format!("/{status}"))
        };
        assert_eq!(probe(&of(200)).await, success("body of 200"));
        assert_eq!(probe(&of(299)).await, success("body of 299"));
        let warning = "Probe terminated redirects, Response body: body of 300".to_owned();
        assert_eq!(probe(&of(300)).await, ProbeOutcome::Warning(warning));
        for status in [400, 404, 500, 503] {
            assert_eq!(probe(&of(status)).await, failed_with(status), "the body is not told");
        }
    }
}

#[tokio::test]
async fn headers_are_sent_as_the_user_wrote_them() {
    let server = Server::http(Speaks::Http1, |request| async move { answer(200, echo(&request)) }).await;
    let cases: &[(Headers<'_>, &[&str], &[&str])] = &[
        (
            &[],
            &["accept: */*\n", "user-agent: kube-probe/1.37\n", "connection: close\n"],
            &["accept-encoding", "content-length"],
        ),
        (&[("Accept-Encoding", "gzip")], &["accept-encoding: gzip\n"], &[]),
        (&[("Accept-Encoding", "")], &["accept-encoding: \n"], &[]),
        (&[("X-Muffins-Or-Cupcakes", "muffins")], &["x-muffins-or-cupcakes: muffins\n"], &[]),
        (&[("User-Agent", "foo/1.0")], &["user-agent: foo/1.0\n"], &["kube-probe"]),
        (&[("User-Agent", "")], &[], &["user-agent"]),
        (&[("Accept", "text/html")], &["accept: text/html\n"], &["*/*"]),
        (&[("User-Agent", "foo/1.0"), ("Accept", "")], &["user-agent: foo/1.0\n"], &["accept:"]),
        (&[("Host", "muffins.example.com")], &["host: muffins.example.com\n"], &["127.0.0.1"]),
    ];
    for (headers, present, absent) in cases {
        let request = with_headers(get(Scheme::Http, server.port, "/"), headers);
        let ProbeOutcome::Success(sent) = probe(&request).await else { panic!("{headers:?}") };
        for text in *present {
            assert!(sent.contains(text), "{headers:?}: {sent}");
        }
        for text in *absent {
            assert!(!sent.contains(text), "{headers:?}: {sent}");
        }
    }
    let ProbeOutcome::Success(sent) = probe(&get(Scheme::Http, server.port, "/")).await else { panic!() };
    let names: BTreeSet<&str> = sent.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names, BTreeSet::from(["accept", "connection", "host", "user-agent"]), "and nothing else");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host() {
    let elsewhere = Server::http(Speaks::Http1, |request| async move {
        let status = if request.uri().path() == "/success" { 200 } else { 500 };
        answer(status, "elsewhere")
    })
    .await;
    let other = elsewhere.port;
    let server = Server::http(Speaks::Http1, move |request| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match request.uri().path() {
            "/redirect" => redirect(302, &query, ""),
            "/loop" => redirect(302, "/loop", ""),
            "/nowhere" => answer(301, "no location"),
            "/success" => answer(200, "ok"),
            _ => answer(500, ""),
        }
    })
    .await;
    let port = server.port;
    let to = |location: &str| get(Scheme::Http, port, &format!("/redirect?{location}"));
    assert_eq!(probe(&to("/success")).await, success("ok"));
    assert_eq!(probe(&to("success")).await, success("ok"), "relative to the path");
    assert_eq!(probe(&to("/fail")).await, failed_with(500));
    assert_eq!(probe(&to(&format!("http://127.0.0.1:{other}/success"))).await, success("elsewhere"));
    assert_eq!(probe(&to(&format!("http://127.0.0.1:{other}/fail"))).await, failed_with(500));
    let ended = "Probe terminated redirects, Response body: ";
    assert_eq!(probe(&to("http://192.0.2.1/fail")).await, ProbeOutcome::Warning(ended.to_owned()));
    assert_eq!(
        probe(&get(Scheme::Http, port, "/nowhere")).await,
        ProbeOutcome::Warning(format!("{ended}no location"))
    );
    let looped = format!("Get \"http://127.0.0.1:{port}/loop\": stopped after 10 redirects");
    assert_eq!(probe(&get(Scheme::Http, port, "/loop")).await, ProbeOutcome::Failure(looped));
    let odd = format!(
        "Get \"http://127.0.0.1:{port}/redirect?ftp://127.0.0.1/\": unsupported protocol scheme \"ftp\""
    );
    assert_eq!(probe(&to("ftp://127.0.0.1/")).await, ProbeOutcome::Failure(odd));
}

#[tokio::test]
async fn every_kind_of_redirect_is_one() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::http(Speaks::Http1, move |request| async move {
            match request.uri().path() {
                "/" => redirect(status, "/new", ""),
                "/bad" => redirect(status, "/worse", ""),
                "/new" => answer(200, ""),
                _ => answer(500, ""),
            }
        })
        .await;
        assert_eq!(probe(&get(Scheme::Http, server.port, "/")).await, success(""), "{status}");
        assert_eq!(probe(&get(Scheme::Http, server.port, "/bad")).await, failed_with(500), "{status}");
    }
}

#[tokio::test]
async fn the_wanted_host_is_kept_over_a_redirect_that_names_none() {
    let server = Server::http(Speaks::Http1, |request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/redirect" => redirect(302, "/host", ""),
            _ => answer(200, host),
        }
    })
    .await;
    let request = with_headers(get(Scheme::Http, server.port, "/redirect"), &[("Host", "www.example.com")]);
    assert_eq!(probe(&request).await, success("www.example.com"));
}

#[tokio::test]
async fn only_the_beginning_of_a_body_is_kept() {
    let server = Server::http(Speaks::Http1, |request| async move {
        let size = request.uri().path().trim_start_matches('/').parse().unwrap();
        answer(200, "a".repeat(size))
    })
    .await;
    for (size, kept) in [
        (MAX_PROBE_OUTPUT - 1, MAX_PROBE_OUTPUT - 1),
        (MAX_PROBE_OUTPUT, MAX_PROBE_OUTPUT),
        (MAX_PROBE_OUTPUT + 1, MAX_PROBE_OUTPUT),
        (10 << 20, MAX_PROBE_OUTPUT),
    ] {
        let outcome = probe(&get(Scheme::Http, server.port, &format!("/{size}"))).await;
        assert_eq!(outcome, success(&"a".repeat(kept)), "{size}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_not_well() {
    let server = Server::tcp(|stream| async move {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let start = Instant::now();
    let short = Duration::from_millis(300);
    for (scheme, http2) in [(Scheme::Http, false), (Scheme::Http, true), (Scheme::Https, false)] {
        let request = HttpGet { http2, ..get(scheme, server.port, "/x") };
        let outcome = transport().http(&request, short).await;
        let expected = format!(
            "Get \"{}://127.0.0.1:{}/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            scheme.as_str(),
            server.port
        );
        assert_eq!(outcome, ProbeOutcome::Failure(expected));
    }
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_probe_that_gave_up_leaves_no_connection() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let server = Server::tcp(move |mut stream| {
        let ended = ended.clone();
        async move {
            use tokio::io::AsyncReadExt;
            while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
            let _ = ended.send(()).await;
        }
    })
    .await;
    for (scheme, http2) in [(Scheme::Http, false), (Scheme::Http, true), (Scheme::Https, false)] {
        let request = HttpGet { http2, ..get(scheme, server.port, "/") };
        transport().http(&request, Duration::from_millis(100)).await;
        tokio::time::timeout(PATIENCE, end.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_says_nothing() {
    let server = Server::tcp(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        std::future::pending().await
    })
    .await;
    let outcome = transport().http(&get(Scheme::Http, server.port, "/"), Duration::from_millis(300)).await;
    let expected = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(outcome, ProbeOutcome::Unknown(expected.to_owned()));
}

#[tokio::test]
async fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let expected = format!(
        "Get \"http://127.0.0.1:{port}/a?b\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(probe(&get(Scheme::Http, port, "/a?b")).await, ProbeOutcome::Failure(expected));
}

#[tokio::test]
async fn answers_that_are_no_http() {
    let port_of = async |bytes| Server::raw(bytes).await;
    let closed = port_of(b"").await;
    let expected = format!("Get \"http://127.0.0.1:{}/\": EOF", closed.port);
    assert_eq!(probe(&get(Scheme::Http, closed.port, "/")).await, ProbeOutcome::Failure(expected));
    let garbage = port_of(b"\x00\x01\x02garbage\r\n\r\n").await;
    assert!(matches!(probe(&get(Scheme::Http, garbage.port, "/")).await, ProbeOutcome::Failure(_)));
}

#[tokio::test]
async fn https_against_a_server_that_speaks_http() {
    let server = Server::raw(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let expected = format!(
        "Get \"https://127.0.0.1:{}/\": http: server gave HTTP response to HTTPS client",
        server.port
    );
    assert_eq!(probe(&get(Scheme::Https, server.port, "/")).await, ProbeOutcome::Failure(expected));
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    // The variables belong to the whole process, so a process of its own has them.
    if std::env::var_os("HTTP_PROXY").is_some() {
        let server = Server::http(Speaks::Http1, |_| async { answer(200, "direct") }).await;
        assert_eq!(probe(&get(Scheme::Http, server.port, "/")).await, success("direct"));
        return;
    }
    let name = "http::proxies_of_the_environment_are_not_used";
    let status = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .stdout(std::process::Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success());
}
