//! `/exec`, `/attach`, `/portForward` and `/run`, as a WebSocket client sees them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_core::sessions::{ContainerTarget, PodTarget, SessionError, Sessions};
use coracle_provider::{Error, ErrorKind, PortConnection, SessionOptions, Stream, TerminalSize};
use http::Request;
use http::header::{ALLOW, RETRY_AFTER};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::fakes::{FakeHost, pod};
use crate::server::{Http1, Setup, TestServer, request};

/// What a command of the fake works with.
struct Guest {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<TerminalSize>,
    exit: oneshot::Sender<Result<i32, Error>>,
}

fn guest() -> (Guest, Stream) {
    let [(stdin, to), (stdout, from), (stderr, errors)] = [duplex(1024), duplex(1024), duplex(1024)];
    let (resize, sizes) = mpsc::channel(1);
    let (told, exit) = oneshot::channel();
    let stream = Stream::Io {
        stdin: Some(Box::new(to)),
        stdout: Some(Box::new(from)),
        stderr: Some(Box::new(errors)),
        resize,
        exit,
    };
    (Guest { stdin, stdout, stderr, sizes, exit: told }, stream)
}

#[async_trait]
impl Sessions for FakeHost {
    async fn exec(
        &self,
        target: &ContainerTarget,
        command: &[String],
        _options: SessionOptions,
    ) -> Result<Stream, SessionError> {
        if target.container != "c" {
            return Err(SessionError::ContainerNotFound { container: target.container.clone() });
        }
        let (mut guest, stream) = guest();
        match command[0].as_str() {
            "cat" => drop(tokio::spawn(async move {
                copy(&mut guest.stdin, &mut guest.stdout).await.unwrap();
                drop(guest.stdout);
                guest.stderr.write_all(b"done").await.unwrap();
                drop(guest.stderr);
                guest.exit.send(Ok(3)).unwrap();
            })),
            "size" => drop(tokio::spawn(async move {
                let size = guest.sizes.recv().await.unwrap();
                let line = format!("{}x{}", size.width, size.height);
                guest.stdout.write_all(line.as_bytes()).await.unwrap();
                guest.exit.send(Ok(0)).unwrap();
            })),
            "hang" => {
                let ended = self.sessions_ended.clone();
                tokio::spawn(async move {
                    guest.exit.closed().await;
                    ended.add_permits(1);
                });
            }
            "at" => return Ok(Stream::Url(command[1].clone())),
            "many" => return Err(Error::new(ErrorKind::ResourceExhausted, "too much").into()),
            other => return Err(Error::invalid(format!("no command {other}")).into()),
        }
        Ok(stream)
    }

    async fn attach(
        &self,
        _target: &ContainerTarget,
        _options: SessionOptions,
    ) -> Result<Stream, SessionError> {
        let (mut guest, stream) = guest();
        tokio::spawn(async move {
            guest.stdout.write_all(b"running").await.unwrap();
            guest.exit.send(Ok(1)).unwrap();
        });
        Ok(stream)
    }

    async fn port_forward_url(
        &self,
        target: &PodTarget,
        ports: &[u16],
    ) -> Result<Option<String>, SessionError> {
        *self.named_ports.lock() = ports.to_vec();
        Ok(if target.name == "elsewhere" { self.runtime_url.lock().clone() } else { None })
    }

    async fn port_forward(&self, _target: &PodTarget, port: u16) -> Result<PortConnection, SessionError> {
        if port != 80 {
            return Err(Error::new(ErrorKind::Unavailable, "connection refused").into());
        }
        let (read, mut stdout) = duplex(1024);
        let (mut stdin, write) = duplex(1024);
        tokio::spawn(async move { copy(&mut stdin, &mut stdout).await });
        Ok(PortConnection { read: Box::new(read), write: Box::new(write) })
    }

    async fn run_in_container(
        &self,
        _target: &ContainerTarget,
        command: &[String],
    ) -> Result<Vec<u8>, SessionError> {
        match command[0].as_str() {
            "echo" => Ok(command[1..].join(" ").into_bytes()),
            _ => Err(SessionError::Exited { command: command.join(" "), code: 1, stderr: "oh".into() }),
        }
    }
}

pub(crate) async fn server() -> (TestServer, Arc<FakeHost>) {
    server_with(|_| {}).await
}

pub(crate) async fn server_with(change: impl FnOnce(&mut Setup)) -> (TestServer, Arc<FakeHost>) {
    let host = Arc::new(FakeHost::default());
    *host.pods.lock() = vec![Arc::new(pod("pod"))];
    let mut setup = Setup { host: host.clone(), ..Setup::default() };
    change(&mut setup);
    (TestServer::start(setup).await, host)
}

pub(crate) fn websocket(path: &str, protocol: &str) -> Request<axum::body::Body> {
    let mut request = request("GET", path, None);
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocol),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

async fn open(client: &mut Http1, path: &str, protocol: &str) -> TokioIo<Upgraded> {
    let response = client.send(websocket(path, protocol)).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

async fn send(io: &mut TokioIo<Upgraded>, message: &[u8]) {
    // Masked with zeros.
    let head = [0x82, 0x80 | u8::try_from(message.len()).unwrap(), 0, 0, 0, 0];
    io.write_all(&[&head, message].concat()).await.unwrap();
    // TLS keeps what the socket does not take at once.
    io.flush().await.unwrap();
}

async fn message(io: &mut TokioIo<Upgraded>) -> Vec<u8> {
    let mut head = [0; 2];
    timeout(Duration::from_secs(10), io.read_exact(&mut head)).await.expect("comes").unwrap();
    let mut length = usize::from(head[1]);
    if length == 126 {
        length = io.read_u16().await.unwrap().into();
    }
    let mut message = vec![0; length];
    io.read_exact(&mut message).await.unwrap();
    if head[0] == 0x88 { b"closed".to_vec() } else { message }
}

#[tokio::test]
async fn a_command_with_input_output_and_an_exit_code() {
    let (server, _) = server().await;
    let mut admin = server.admin().await;
    for path in ["/exec/ns/pod/c", "/exec/ns/pod/uid-pod/c"] {
        let path = format!("{path}?command=cat&input=1&output=1&error=1");
        let mut io = open(&mut server.admin().await, &path, "v5.channel.k8s.io").await;
        assert_eq!(message(&mut io).await, b"\x01");
        send(&mut io, b"\x00hello").await;
        assert_eq!(message(&mut io).await, b"\x01hello");
        send(&mut io, b"\xff\x00").await;
        assert_eq!(message(&mut io).await, b"\x02done");
        let status = String::from_utf8(message(&mut io).await).unwrap();
        assert!(status.starts_with(
            "\u{3}{\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: "
        ));
        assert!(
            status.ends_with(r#""details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#),
            "{status}"
        );
        assert_eq!(message(&mut io).await, b"closed");
    }
    assert_eq!(admin.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn terminals_and_attached_clients() {
    let (server, _) = server().await;
    let path = "/exec/ns/pod/c?command=size&input=1&output=1&tty=1";
    let mut io = open(&mut server.admin().await, path, "v4.channel.k8s.io").await;
    assert_eq!(message(&mut io).await, b"\x01");
    send(&mut io, b"\x04{\"Width\":80,\"Height\":24}").await;
    assert_eq!(message(&mut io).await, b"\x0180x24");
    assert_eq!(message(&mut io).await, b"\x03{\"status\":\"Success\"}");

    let mut io = open(&mut server.admin().await, "/attach/ns/pod/c?output=1", "v4.channel.k8s.io").await;
    assert_eq!(message(&mut io).await, b"\x01");
    assert_eq!(message(&mut io).await, b"\x01running");
    assert_eq!(message(&mut io).await, b"\x03{\"status\":\"Success\"}");
}

#[tokio::test]
async fn ports_are_forwarded() {
    let (server, _) = server().await;
    let path = "/portForward/ns/pod?port=80,81";
    let mut io = open(&mut server.admin().await, path, "v4.channel.k8s.io").await;
    for expected in [b"\x00\x50\x00", b"\x01\x50\x00", b"\x02\x51\x00", b"\x03\x51\x00"] {
        assert_eq!(message(&mut io).await, expected);
    }
    let refused = message(&mut io).await;
    let expected = "\u{3}error forwarding port 81 to pod pod, uid uid-pod: connection refused";
    assert_eq!(String::from_utf8(refused).unwrap(), expected);
    send(&mut io, b"\x00ping").await;
    assert_eq!(message(&mut io).await, b"\x00ping");
}

#[tokio::test]
async fn commands_end_with_their_client_and_with_the_server() {
    let (server, host) = server().await;
    let path = "/exec/ns/pod/c?command=hang&output=1";
    let ended = || async {
        let ended = host.sessions_ended.acquire();
        timeout(Duration::from_secs(10), ended).await.expect("ends").unwrap().forget();
    };
    let mut io = open(&mut server.admin().await, path, "v5.channel.k8s.io").await;
    assert_eq!(message(&mut io).await, b"\x01");
    drop(io);
    ended().await;

    let io = open(&mut server.admin().await, path, "v5.channel.k8s.io").await;
    server.shutdown.cancel();
    ended().await;
    drop(io);

    let (server, host) = self::server().await;
    let mut io = open(&mut server.admin().await, path, "v5.channel.k8s.io").await;
    assert_eq!(message(&mut io).await, b"\x01");
    drop(server);
    let ended = host.sessions_ended.acquire();
    timeout(Duration::from_secs(10), ended).await.expect("ends").unwrap().forget();
    assert!(matches!(io.read(&mut [0; 8]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn two_hundred_sessions_go_on_beside_each_other() {
    let (server, _) = server().await;
    let mut sessions = Vec::new();
    for _ in 0..200 {
        let path = "/exec/ns/pod/c?command=cat&input=1&output=1";
        let mut io = open(&mut server.admin().await, path, "v5.channel.k8s.io").await;
        assert_eq!(message(&mut io).await, b"\x01");
        sessions.push(io);
    }
    // Each is asked once all are there, and hears its own answer.
    for (i, io) in sessions.iter_mut().enumerate() {
        send(io, format!("\0{i}").as_bytes()).await;
    }
    for (i, io) in sessions.iter_mut().enumerate() {
        assert_eq!(message(io).await, format!("\x01{i}").as_bytes());
    }
}

#[tokio::test]
async fn a_node_has_only_so_many_sessions() {
    let (server, host) = server_with(|setup| setup.options.limits.max_sessions = 1).await;
    let path = "/exec/ns/pod/c?command=hang&output=1";
    let io = open(&mut server.admin().await, path, "v5.channel.k8s.io").await;
    let answer = server.admin().await.ask(websocket(path, "v5.channel.k8s.io")).await;
    assert_eq!((answer.status.as_u16(), &answer.headers[RETRY_AFTER]), (429, &"1".parse().unwrap()));
    drop(io);
    timeout(Duration::from_secs(10), host.sessions_ended.acquire()).await.expect("ends").unwrap().forget();
}

#[tokio::test]
async fn refusals_before_the_upgrade() {
    let (server, _) = server().await;
    let mut admin = server.admin().await;
    for (path, expected) in [
        ("/exec/ns/pod/c?command=cat", (400, "you must specify at least 1 of stdin, stdout, stderr")),
        ("/exec/ns/none/c?command=cat&output=1", (404, "pod does not exist")),
        ("/attach/ns/none/c?output=1", (404, "pod does not exist")),
        ("/exec/ns/pod/x?command=cat&output=1", (500, "container not found (\"x\")")),
        ("/exec/ns/pod/c?command=x&output=1", (500, "no command x")),
        ("/exec/ns/pod/c?command=many&output=1", (429, "too much")),
        ("/portForward/ns/none", (404, "pod does not exist")),
        ("/portForward/ns/pod/other-uid", (404, "pod not found")),
        ("/portForward/ns/pod", (400, "query parameter \"port\" is required\n")),
        ("/exec/ns/pod", (404, "404 page not found\n")),
    ] {
        let answer = admin.ask(websocket(path, "v4.channel.k8s.io")).await;
        assert_eq!(answer.is(), expected, "{path}");
    }
    let answer = admin.ask(websocket("/exec/ns/pod/c?command=cat&output=1", "v9.channel.k8s.io")).await;
    assert_eq!(answer.status, 403);
    let answer = admin.get("/exec/ns/pod/c?command=cat&output=1").await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let answer = admin.ask(request("PUT", "/exec/ns/pod/c", None)).await;
    assert_eq!((answer.status.as_u16(), answer.headers[ALLOW].to_str().unwrap()), (405, "GET, POST"));
}

#[tokio::test]
async fn run_answers_with_the_output() {
    let (server, _) = server().await;
    let mut admin = server.admin().await;
    for (path, expected) in [
        ("/run/ns/pod/c?cmd=echo+a+b", (200, "a b")),
        ("/run/ns/pod/uid-pod/c?cmd=echo", (200, "")),
        ("/run/ns/pod/c?cmd=false+x", (500, "command 'false x' exited with 1: oh")),
        ("/run/ns/none/c?cmd=echo", (404, "pod does not exist")),
    ] {
        assert_eq!(admin.ask(request("POST", path, None)).await.is(), expected, "{path}");
    }
    assert_eq!(admin.get("/run/ns/pod/c?cmd=echo").await.status, 405);
}
