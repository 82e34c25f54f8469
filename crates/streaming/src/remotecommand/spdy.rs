//! A session over SPDY/3.1: a stream for each of its streams, told apart by a header. After `httpstream.go`.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Options, Resizes, Session};
use crate::connection::Connection;
use crate::spdy::{Settings, Stream, serve};
use crate::{Error, Timeouts};

const V1: &str = "channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// What is supported, the best first.
pub(super) const PROTOCOLS: &[&str] = &[V4, V3, V2, V1];

/// There are five kinds of streams; some clients may make one too many.
const MAX_STREAMS: usize = 16;

pub(super) async fn session<T>(
    io: T,
    protocol: &str,
    options: Options,
    timeouts: Timeouts,
) -> Result<Session, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let settings = Settings { idle_timeout: timeouts.idle, max_streams: MAX_STREAMS, admit: |_| true };
    let (shared, mut opened, driver) = serve(io, settings).map_err(Error::Connection)?;
    let connection = Connection::spawn(&shared, driver);

    let has_resizes = options.tty && matches!(protocol, V3 | V4);
    let streams = timeout(timeouts.stream_creation, collect(&mut opened, options, has_resizes)).await;
    let mut streams = streams.map_err(|_| Error::StreamCreationTimeout)??;

    if protocol == V1
        && let Some(mut error) = streams.error.take()
    {
        // As kubelets of 1.0 do, to which clients of this version are used.
        error.write.reset();
    }
    let (stdin, stdin_reply) = streams.stdin.map(|it| (it.read, it.write)).unzip();
    Ok(Session {
        stdin,
        stdout: streams.stdout.map(|it| it.write),
        stderr: streams.stderr.map(|it| it.write),
        resizes: streams.resize.map(|it| Resizes::new(it.read)),
        stdin_reply: stdin_reply.filter(|_| protocol != V1),
        error: streams.error.map(|it| it.write),
        has_json_status: protocol == V4,
        connection,
    })
}

#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Waits until the client has opened what its request asks for (`waitForStreams`). What it does not ask for is reset.
async fn collect(
    opened: &mut mpsc::Receiver<Stream>,
    options: Options,
    has_resizes: bool,
) -> Result<Streams, Error> {
    let wanted = [true, options.stdin, options.stdout, options.stderr, has_resizes];
    let mut missing = wanted.into_iter().filter(|it| *it).count();
    let mut streams = Streams::default();
    while missing > 0 {
        let mut stream = opened.recv().await.ok_or(Error::ClientGone)?;
        let place = match stream.headers.get("streamType") {
            "error" => Some(&mut streams.error),
            "stdin" => Some(&mut streams.stdin).filter(|_| options.stdin),
            "stdout" => Some(&mut streams.stdout).filter(|_| options.stdout),
            "stderr" => Some(&mut streams.stderr).filter(|_| options.stderr),
            "resize" => Some(&mut streams.resize).filter(|_| has_resizes),
            _ => None,
        };
        match place {
            Some(place) if place.is_none() => {
                *place = Some(stream);
                missing -= 1;
            }
            _ => stream.write.reset(),
        }
    }
    Ok(streams)
}
