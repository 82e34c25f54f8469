//! A server whose commands are named by the query of a request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use coracle_streaming::Timeouts;
use coracle_streaming::portforward::{self, Forward, Forwarder};
use coracle_streaming::remotecommand::{self, Options, Outcome, Session};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Dropping it ends everything.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// Gets a permit for each session and forwarder that has ended.
    pub(crate) ended: Arc<Semaphore>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Timeouts::default()).await
    }

    pub(crate) async fn with(timeouts: Timeouts) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::new(Semaphore::new(0));
        let _task = AbortOnDropHandle::new(tokio::spawn(serve(listener, timeouts, ended.clone())));
        Self { port, ended, _task }
    }

    pub(crate) fn exec(&self, query: &str) -> String {
        format!("http://127.0.0.1:{}/exec?{query}", self.port)
    }

    pub(crate) fn port_forward(&self) -> String {
        format!("http://127.0.0.1:{}/portForward", self.port)
    }

    pub(crate) async fn session_ended(&self) {
        let ended = self.ended.acquire();
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("ends").unwrap().forget();
    }
}

async fn serve(listener: TcpListener, timeouts: Timeouts, ended: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let ended = ended.clone();
        connections.spawn(async move {
            let (sender, session) = tokio::sync::oneshot::channel();
            let sender = std::sync::Mutex::new(Some(sender));
            let service = service_fn(|request| {
                let (response, upgraded) = answer(request, timeouts);
                if let (Some(upgraded), Some(sender)) = (upgraded, sender.lock().unwrap().take()) {
                    let _ = sender.send(upgraded);
                }
                async { Ok::<_, Infallible>(response) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            drop(sender.into_inner());
            if let Ok(upgraded) = session.await {
                upgraded.run().await;
                ended.add_permits(1);
            }
        });
    }
}

enum Upgraded {
    Exec(remotecommand::Handshake, HashMap<String, String>),
    PortForward(portforward::Handshake),
}

fn answer(mut request: Request<Incoming>, timeouts: Timeouts) -> (Response<String>, Option<Upgraded>) {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let accepted = if request.uri().path() == "/exec" {
        let options = Options::from_query(&query).unwrap();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        remotecommand::accept(&mut request, options, timeouts)
            .map(|(response, handshake)| (response, Upgraded::Exec(handshake, pairs)))
    } else {
        portforward::accept(&mut request, timeouts)
            .map(|(response, handshake)| (response, Upgraded::PortForward(handshake)))
    };
    match accepted {
        Ok((response, upgraded)) => (response, Some(upgraded)),
        Err(rejection) => (rejection.into_response(), None),
    }
}

impl Upgraded {
    async fn run(self) {
        match self {
            Self::Exec(handshake, query) => {
                if let Ok(mut session) = handshake.session().await
                    && let Some(outcome) = command(&mut session, &query).await
                {
                    session.finish(&outcome).await;
                }
            }
            Self::PortForward(handshake) => {
                if let Ok(forwarder) = handshake.forwarder().await {
                    forward_all(forwarder).await;
                }
            }
        }
    }
}

/// `None` where the client was the first to go.
async fn command(session: &mut Session, query: &HashMap<String, String>) -> Option<Outcome> {
    let number = || query["n"].parse::<u64>().unwrap();
    match query["command"].as_str() {
        "cat" => {
            let (mut stdin, mut stdout) = (session.stdin.take()?, session.stdout.take()?);
            copy(&mut stdin, &mut stdout).await.ok()?;
            Some(Outcome::Success)
        }
        "exit" => {
            session.stderr.as_mut()?.write_all(b"bye\n").await.ok()?;
            let code = number() as i32;
            Some(Outcome::NonZeroExit { code, message: format!("exit status {code}") })
        }
        "fail" => Some(Outcome::Failure("no such container".into())),
        "write" => {
            let mut stdout = session.stdout.take()?;
            let mut zeros = tokio::io::repeat(b'y').take(number());
            copy(&mut zeros, &mut stdout).await.ok()?;
            Some(Outcome::Success)
        }
        "count" => {
            let read = copy(session.stdin.as_mut()?, &mut tokio::io::sink()).await.ok()?;
            session.stdout.as_mut()?.write_all(format!("{read}\n").as_bytes()).await.ok()?;
            Some(Outcome::Success)
        }
        "sizes" => {
            for _ in 0..number() {
                let size = session.resizes.as_mut()?.next().await?;
                let line = format!("{}x{}\r\n", size.width, size.height);
                session.stdout.as_mut()?.write_all(line.as_bytes()).await.ok()?;
            }
            Some(Outcome::Success)
        }
        "wait" => {
            session.stdout.as_mut()?.write_all(b"waiting\n").await.ok()?;
            session.ended().await;
            None
        }
        other => Some(Outcome::Failure(format!("no command {other}"))),
    }
}

async fn forward_all(mut forwarder: Forwarder) {
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            next = forwarder.next() => match next {
                Some(forward) => drop(forwards.spawn(connect(forward))),
                None => return,
            },
            Some(_) = forwards.join_next() => {}
        }
    }
}

async fn connect(mut forward: Forward) {
    match TcpStream::connect(("127.0.0.1", forward.port())).await {
        Ok(mut stream) => drop(copy_bidirectional(&mut forward, &mut stream).await),
        Err(error) => {
            let message = format!("error forwarding port {}: {error}", forward.port());
            let _ = forward.fail(&message).await;
        }
    }
}
