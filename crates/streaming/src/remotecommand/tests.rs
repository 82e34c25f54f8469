//! What client-go does not do: clients that are slow, odd, or of old versions.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::*;
use crate::spdy::tests::Client;
use crate::websocket::tests::masked;

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

fn timeouts() -> Timeouts {
    Timeouts { idle: Duration::from_secs(60), stream_creation: Duration::from_secs(30) }
}

fn spdy_session(
    protocol: &'static str,
    options: Options,
) -> (Client, impl Future<Output = Result<Session, Error>>) {
    let (ours, theirs) = duplex(64 * 1024);
    (Client::new(ours), spdy::session(theirs, protocol, options, timeouts()))
}

async fn websocket_session(protocol: &str, options: Options) -> (DuplexStream, Session) {
    let (ours, theirs) = duplex(64 * 1024);
    (ours, websocket::session(theirs, protocol, options, timeouts()).await.unwrap())
}

#[tokio::test]
async fn what_is_not_asked_for_or_comes_twice_is_reset() {
    let options = Options { stdout: true, ..Options::default() };
    let (mut client, session) = spdy_session("v4.channel.k8s.io", options);
    let session = tokio::spawn(session);
    for (id, kind, is_reset) in [
        (1, "stdin", true),
        (3, "error", false),
        (5, "error", true),
        (7, "resize", true),
        (9, "stdout", false),
    ] {
        client.open(id, &[("streamtype", kind)]).await;
        client.expect_control(2, &id.to_be_bytes()).await;
        if is_reset {
            client.expect_control(3, &id.to_be_bytes()).await;
        }
    }
    let session = session.await.unwrap().unwrap();
    assert!(session.stdin.is_none() && session.stdout.is_some() && session.resizes.is_none());
}

/// The first version gets no status: its error stream is reset at once, and stdin is half-closed.
#[tokio::test]
async fn the_first_version_is_as_it_was() {
    let (mut client, session) = spdy_session("channel.k8s.io", ALL);
    let session = tokio::spawn(session);
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
        client.expect_control(2, &id.to_be_bytes()).await;
    }
    client.expect_control(3, &[0, 0, 0, 1]).await;
    assert_eq!(client.frame().await.0, [0, 0, 0, 3, 1, 0, 0, 0]);
    let finishing = tokio::spawn(async { session.await.unwrap().unwrap().finish(&Outcome::Success).await });
    for id in [5, 7] {
        assert_eq!(client.frame().await.0, [0, 0, 0, id, 1, 0, 0, 0]);
    }
    client.expect_control(7, &[0, 0, 0, 7]).await;
    drop(client);
    finishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_have_to_open_their_streams_in_time() {
    let (mut client, session) = spdy_session("v4.channel.k8s.io", ALL);
    let session = tokio::spawn(session);
    client.open(1, &[("streamtype", "error")]).await;
    let error = session.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::StreamCreationTimeout), "{error}");

    let (client, session) = spdy_session("v4.channel.k8s.io", ALL);
    drop(client);
    assert!(matches!(session.await.unwrap_err(), Error::ClientGone));
}

#[tokio::test]
async fn a_dropped_session_cuts_the_connection() {
    let (mut client, session) = websocket_session("v5.channel.k8s.io", ALL).await;
    let mut hello = [0; 3];
    client.read_exact(&mut hello).await.unwrap();
    assert_eq!(hello, [0x82, 1, 1]);
    let Session { stdin, stdout, connection, .. } = session;
    drop(connection);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(stdin.unwrap().read(&mut [0; 8]).await.is_err());
    assert!(stdout.unwrap().write(b"x").await.is_err());
}

#[tokio::test]
async fn old_websocket_clients_are_told_in_text_or_base64() {
    let exit = Outcome::NonZeroExit { code: 1, message: "x".into() };
    for (protocol, outcome, expected) in [
        ("", &Outcome::Success, &b"\x82\x01\x01\x82\x03\x01hi"[..]),
        (
            "channel.k8s.io",
            &exit,
            b"\x82\x01\x01\x82\x03\x01hi\x82\x2e\x03command terminated with non-zero exit code: x",
        ),
        ("base64.channel.k8s.io", &Outcome::Success, b"\x81\x011\x81\x051aGk="),
        (
            "v4.base64.channel.k8s.io",
            &Outcome::Success,
            b"\x81\x011\x81\x051aGk=\x81\x1d3eyJzdGF0dXMiOiJTdWNjZXNzIn0=",
        ),
        (
            "v4.channel.k8s.io",
            &Outcome::Success,
            b"\x82\x01\x01\x82\x03\x01hi\x82\x15\x03{\"status\":\"Success\"}",
        ),
    ] {
        let (mut client, mut session) = websocket_session(protocol, ALL).await;
        session.stdout.as_mut().unwrap().write_all(b"hi").await.unwrap();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        });
        session.finish(outcome).await;
        let got = reading.await.unwrap();
        assert_eq!(got.strip_suffix(b"\x88\x02\x03\xe8"), Some(expected), "{protocol}: {got:?}");
    }
}

#[tokio::test]
async fn the_fifth_version_closes_stdin_alone() {
    let (mut client, mut session) = websocket_session("v5.channel.k8s.io", ALL).await;
    client.write_all(&masked(0x82, b"\x00input")).await.unwrap();
    client.write_all(&masked(0x82, b"\xff\x00")).await.unwrap();
    let mut input = String::new();
    session.stdin.as_mut().unwrap().read_to_string(&mut input).await.unwrap();
    assert_eq!(input, "input");
    session.stdout.as_mut().unwrap().write_all(b"output").await.unwrap();
    let mut output = [0; 12];
    client.read_exact(&mut output).await.unwrap();
    assert_eq!(&output, b"\x82\x01\x01\x82\x07\x01output");
}
