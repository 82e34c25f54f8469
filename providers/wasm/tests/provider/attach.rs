//! The standard streams of a container's own program.

use std::time::Duration;

use coracle_provider::{
    ContainerStatus, ErrorKind, Result, RuntimeService, SessionOptions, Stream, StreamingService,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::services::serve;
use crate::support::{Host, guest, log, strings, within};

struct Attached {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    exit: oneshot::Receiver<Result<i32>>,
}

fn options(stdin: bool, tty: bool) -> SessionOptions {
    SessionOptions { stdin, stdout: true, stderr: !tty, tty }
}

async fn attach(host: &Host, container: &ContainerStatus, stdin: bool, tty: bool) -> Attached {
    let session = host.provider.attach(&container.id, options(stdin, tty)).await.unwrap();
    let Stream::Io { stdin, stdout, stderr, exit, .. } = session else { panic!("a URL") };
    assert_eq!(stderr.is_none(), tty);
    Attached { stdin, stdout: stdout.unwrap(), exit }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), expected: &str) {
    let mut seen = vec![0; expected.len()];
    within(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_and_go_and_the_input_stays_open() {
    let host = Host::start().await;
    for module in ["stay", "stay-p2"] {
        let container = host
            .run(&guest(module), |c| {
                c.args = strings(&["echo"]);
                c.stdin = true;
            })
            .await;
        let mut first = attach(&host, &container, true, false).await;
        let mut listener = attach(&host, &container, false, false).await;
        assert!(listener.stdin.is_none());
        first.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
        read(&mut first.stdout, "one\n").await;
        read(&mut listener.stdout, "one\n").await;
        drop(first);
        let mut second = attach(&host, &container, true, false).await;
        second.stdin.as_mut().unwrap().write_all(b"two\n").await.unwrap();
        read(&mut second.stdout, "two\n").await;
        let stopped = host.provider.stop_container(&container.id, Duration::ZERO).await.unwrap();
        assert_eq!(log(&stopped), ["stdout F one", "stdout F two"]);
        assert_eq!(within(second.exit).await.unwrap(), Ok(137));
        assert_eq!(within(second.stdout.read_to_end(&mut Vec::new())).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_stdin_once_the_input_ends_with_the_first_client() {
    let host = Host::start().await;
    let container = host
        .run(&guest("stay"), |c| {
            c.args = strings(&["echo"]);
            (c.stdin, c.stdin_once) = (true, true);
        })
        .await;
    let mut first = attach(&host, &container, true, false).await;
    assert!(attach(&host, &container, true, false).await.stdin.is_none(), "it is taken");
    first.stdin.as_mut().unwrap().write_all(b"last words").await.unwrap();
    first.stdin = None;
    let mut said = String::new();
    within(first.stdout.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "last words");
    assert_eq!(within(first.exit).await.unwrap(), Ok(0));
    let ended = host.end_of(&container).await;
    assert_eq!(log(&ended), ["stdout P last words"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_s_terminal_is_one_for_all() {
    let host = Host::start().await;
    let container = host
        .run(&guest("stay"), |c| {
            c.args = strings(&["echo"]);
            (c.stdin, c.tty) = (true, true);
        })
        .await;
    let error = host.provider.attach(&container.id, options(true, false)).await.unwrap_err();
    assert!(error.kind == ErrorKind::InvalidArgument && error.message.contains("terminal"), "{error}");
    let mut client = attach(&host, &container, true, true).await;
    client.stdin.as_mut().unwrap().write_all(b"hi\r").await.unwrap();
    read(&mut client.stdout, "hi\r\nhi\r\n").await;
    client.stdin.as_mut().unwrap().write_all(b"\x03").await.unwrap();
    let ended = host.end_of(&container).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (130, "Error"));
    assert_eq!(log(&ended), ["stdout F hi"], "the log has what the program wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_makes_the_guest_wait_and_loses_nothing() {
    let host = Host::start().await;
    let container = host
        .run(&guest("stay"), |c| {
            c.args = strings(&["echo"]);
            (c.stdin, c.stdin_once) = (true, true);
        })
        .await;
    let mut client = attach(&host, &container, true, false).await;
    let mut stdin = client.stdin.take().unwrap();
    let sent = vec![b'x'; 1 << 20];
    let blocked = tokio::time::timeout(Duration::from_millis(500), stdin.write_all(&sent)).await;
    assert!(blocked.is_err(), "buffers on the way are bounded");
    drop(stdin);
    let mut received = Vec::new();
    within(client.stdout.read_to_end(&mut received)).await.unwrap();
    assert!(received.len() > 64 << 10 && received.len() < 1 << 20, "{}", received.len());
    assert_eq!(within(client.exit).await.unwrap(), Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_listened_to_and_have_no_input() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |_| ()).await;
    let mut attached = attach(&host, &container, true, false).await;
    assert!(attached.stdin.is_none());
    Client::connect(address).await.get("/hello").await;
    read(&mut attached.stdout, "/hello\n").await;
    for (stdin, tty) in [(true, false), (false, true)] {
        let error = host.try_create(&guest("http"), |c| (c.stdin, c.tty) = (stdin, tty)).await.unwrap_err();
        assert!(
            error.kind == ErrorKind::InvalidArgument && error.message.contains("HTTP service"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_forwarded_to_what_listens_in_the_pod() {
    let host = Host::start().await;
    let (container, address) = serve(&host, |_| ()).await;
    assert_eq!(host.provider.port_forward_url(&container.sandbox_id, &[]).await, Ok(None));
    let mut connection = host.provider.port_forward(&container.sandbox_id, address.port()).await.unwrap();
    let request = b"GET /forwarded HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    connection.write.write_all(request).await.unwrap();
    let mut answer = String::new();
    within(connection.read.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello from wasm: /forwarded\n\r\n0\r\n\r\n"), "{answer}");
    let error = host.provider.port_forward(&container.sandbox_id, 1).await.unwrap_err();
    assert!(error.kind == ErrorKind::Unavailable && error.message.contains("port 1"), "{error}");
}
