//! What client-go does not do: clients that are slow, odd, or of old versions.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::spdy::tests::Client;
use crate::websocket::tests::masked;

fn timeouts() -> Timeouts {
    Timeouts { idle: Duration::from_secs(3600), stream_creation: Duration::from_secs(30) }
}

fn spdy_forwarder() -> (Client, Forwarder) {
    let (ours, theirs) = duplex(64 * 1024);
    (Client::new(ours), spdy::forwarder(theirs, timeouts()).unwrap())
}

async fn open(client: &mut Client, id: u32, kind: &str, request: Option<&str>) {
    let request = request.map(|request| ("requestid", request));
    let headers = [("streamtype", kind), ("port", "80")].into_iter().chain(request).collect::<Vec<_>>();
    client.open(id, &headers).await;
    client.expect_control(2, &id.to_be_bytes()).await;
}

#[tokio::test]
async fn streams_find_each_other_in_any_order() {
    let (mut client, mut forwarder) = spdy_forwarder();
    open(&mut client, 1, "error", Some("a")).await;
    open(&mut client, 3, "data", Some("b")).await;
    open(&mut client, 5, "data", Some("a")).await;
    let mut first = forwarder.next().await.unwrap();
    open(&mut client, 7, "error", Some("b")).await;
    let mut second = forwarder.next().await.unwrap();
    for (forward, id) in [(&mut first, 5), (&mut second, 3)] {
        assert_eq!(forward.port(), 80);
        forward.write_all(b"hi").await.unwrap();
        assert_eq!(client.frame().await.0[..4], [0, 0, 0, id]);
    }
}

/// Clients before 1.3 send no request ids, but the streams one after the other.
#[tokio::test]
async fn streams_without_a_request_find_each_other() {
    let (mut client, mut forwarder) = spdy_forwarder();
    for id in [1, 5] {
        open(&mut client, id, "error", None).await;
        open(&mut client, id + 2, "data", None).await;
        let mut forward = forwarder.next().await.unwrap();
        client.data(id + 2, 1, b"hello").await;
        let mut text = String::new();
        forward.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        std::mem::forget(forward);
    }
}

#[tokio::test]
async fn streams_that_say_nothing_are_refused() {
    let (mut client, _forwarder) = spdy_forwarder();
    for (number, headers) in [
        &[("streamtype", "data")][..],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "data"), ("port", "http")],
        &[("port", "80")],
        &[("streamtype", "stdin"), ("port", "80")],
    ]
    .into_iter()
    .enumerate()
    {
        let id = 2 * u32::try_from(number).unwrap() + 1;
        client.open(id, headers).await;
        client.expect_control(3, &id.to_be_bytes()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_only_so_long_for_the_other() {
    let (mut client, mut forwarder) = spdy_forwarder();
    open(&mut client, 1, "error", Some("a")).await;
    let forwarding = tokio::spawn(async move { forwarder.next().await.is_none() });
    let (head, message) = client.frame().await;
    assert_eq!((head[3], message.as_slice()), (1, &b"(request=a) timed out waiting for streams"[..]));
    assert_eq!(client.frame().await.0, [0, 0, 0, 1, 1, 0, 0, 0]);
    client.expect_control(3, &[0, 0, 0, 1]).await;
    // A second of its kind does not count.
    open(&mut client, 3, "error", Some("b")).await;
    open(&mut client, 5, "error", Some("b")).await;
    client.expect_control(3, &[0, 0, 0, 5]).await;
    drop(client);
    assert!(forwarding.await.unwrap());
}

/// A client that opens and resets streams for ever holds no more than it may have open.
#[tokio::test]
async fn streams_that_were_reset_are_not_gathered() {
    let (mut client, mut forwarder) = spdy_forwarder();
    let forwarding = tokio::spawn(async move {
        let forward = forwarder.next().await.unwrap();
        (forward.port(), forwarder)
    });
    for number in 0..5000 {
        let id = 2 * number + 1;
        open(&mut client, id, "error", Some(&number.to_string())).await;
        client.reset(id).await;
    }
    open(&mut client, 10_001, "error", Some("a")).await;
    open(&mut client, 10_003, "data", Some("a")).await;
    let (port, forwarder) = forwarding.await.unwrap();
    assert_eq!(port, 80);
    let Source::Pairs(pairs) = &forwarder.source else { panic!("{forwarder:?}") };
    assert!(pairs.waiting() <= 2000, "{}", pairs.waiting());
}

#[tokio::test]
async fn a_failure_is_told_on_the_error_stream() {
    let (mut client, mut forwarder) = spdy_forwarder();
    open(&mut client, 1, "error", Some("a")).await;
    open(&mut client, 3, "data", Some("a")).await;
    forwarder.next().await.unwrap().fail("refused").await.unwrap();
    assert_eq!(client.frame().await, ([0, 0, 0, 1, 0, 0, 0, 7], b"refused".to_vec()));
    assert_eq!(client.frame().await.0, [0, 0, 0, 1, 1, 0, 0, 0]);
    client.expect_control(3, &[0, 0, 0, 3]).await;
}

/// A reset after all was said is an end, and before it a failure.
#[tokio::test]
async fn resets_are_told_from_ends() {
    let (mut client, mut forwarder) = spdy_forwarder();
    for (id, is_shut_down) in [(1, true), (5, false)] {
        open(&mut client, id, "error", None).await;
        open(&mut client, id + 2, "data", None).await;
        let mut forward = forwarder.next().await.unwrap();
        if is_shut_down {
            forward.shutdown().await.unwrap();
            // A frame that is still to be written when the reset comes is not written any more.
            assert_eq!(client.frame().await.0, [0, 0, 0, 3, 1, 0, 0, 0]);
        }
        client.reset(id + 2).await;
        let end = forward.read(&mut [0; 8]).await.map_err(|error| error.kind());
        assert_eq!(end, if is_shut_down { Ok(0) } else { Err(io::ErrorKind::ConnectionReset) });
        std::mem::forget(forward);
    }
}

#[tokio::test]
async fn named_ports_have_two_channels_each() {
    let (mut client, theirs) = duplex(64 * 1024);
    let ports = websocket::ports("port=80,8080").unwrap();
    let mut forwarder = websocket::forwarder(theirs, "v4.channel.k8s.io", &ports, timeouts()).await.unwrap();
    let mut ports = [0; 20];
    client.read_exact(&mut ports).await.unwrap();
    assert_eq!(&ports, b"\x82\x03\x00\x50\x00\x82\x03\x01\x50\x00\x82\x03\x02\x90\x1f\x82\x03\x03\x90\x1f");

    let mut first = forwarder.next().await.unwrap();
    let second = forwarder.next().await.unwrap();
    assert_eq!((first.port(), second.port()), (80, 8080));
    client.write_all(&masked(0x82, b"\x00ping")).await.unwrap();
    let mut ping = [0; 4];
    first.read_exact(&mut ping).await.unwrap();
    first.write_all(b"pong").await.unwrap();
    drop(first);
    second.fail("refused").await.unwrap();

    let forwarding = tokio::spawn(async move { forwarder.next().await.is_none() });
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x82\x05\x00pong\x82\x08\x03refused\x88\x02\x03\xe8");
    drop(client);
    assert!(forwarding.await.unwrap());
}

/// The table of `TestV4Options`.
#[test]
fn ports_are_named_in_the_query() {
    for (query, expected) in [
        ("port=80", Ok(vec![80])),
        ("port=80,90,100", Ok(vec![80, 90, 100])),
        ("port=80&port=90", Ok(vec![80, 90])),
        ("", Err("query parameter \"port\" is required")),
        ("port=", Err("query parameter \"port\" cannot be empty")),
        ("port=abc", Err("unable to parse \"abc\" as a port")),
        ("port=-1", Err("unable to parse \"-1\" as a port")),
        ("port=65536", Err("unable to parse \"65536\" as a port")),
        ("port=1,0", Err("port \"0\" must be > 0")),
    ] {
        match (websocket::ports(query), expected) {
            (Ok(ports), Ok(expected)) => assert_eq!(ports, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().starts_with(expected), "{error}"),
            (got, _) => panic!("{query}: {got:?}"),
        }
    }
    assert!(websocket::ports(&format!("port={}", vec!["80"; 128].join(","))).is_err());
}

#[test]
fn what_requests_are_for() {
    let request = |pairs: &[(&str, &str)]| {
        let mut request = Request::builder().uri("/portForward/ns/pod?port=80");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    };
    let websocket = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (protocols, expected) in [
        ("SPDY/3.1+portforward.k8s.io", Ok(TUNNELLED_V1)),
        ("v4.channel.k8s.io, SPDY/3.1+portforward.k8s.io", Ok(TUNNELLED_V1)),
        ("v4.base64.channel.k8s.io", Ok("v4.base64.channel.k8s.io")),
        ("SPDY/3.1+other.k8s.io", Err(403)),
        ("v9.channel.k8s.io", Err(403)),
    ] {
        let mut request = request(&[&websocket[..], &[("sec-websocket-protocol", protocols)]].concat());
        match (accept(&mut request, timeouts()), expected) {
            (Ok((response, _)), Ok(expected)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], expected);
            }
            (Err(rejection), Err(status)) => assert_eq!(rejection.into_response().status(), status),
            (got, _) => panic!("{protocols}: {got:?}"),
        }
    }
    let spdy = [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "portforward.k8s.io"),
    ];
    let (response, _) = accept(&mut request(&spdy), timeouts()).unwrap();
    assert_eq!(response.headers()["x-stream-protocol-version"], "portforward.k8s.io");
    assert_eq!(accept(&mut request(&[]), timeouts()).unwrap_err().into_response().status(), 400);
}
