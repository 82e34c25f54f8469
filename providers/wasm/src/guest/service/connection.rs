//! Connections of clients: HTTP/1.1, and HTTP/2 with prior knowledge, on one port.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::Service;
use super::patient::PatientStream;

/// What hyper needs at least.
const LEAST_BUFFER: usize = 8 << 10;
/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client may take to answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

impl Service {
    /// Serves one client until it goes away, or the service ends.
    pub(super) async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without it a response waits for the client to acknowledge the one before.
        let _ = stream.set_nodelay(true);
        let Ok(peer) = stream.peer_addr() else { return };
        let Ok(peer) = HeaderValue::try_from(peer.to_string()) else { return };
        let is_http2 = tokio::select! {
            biased;
            () = self.closing.cancelled() => return,
            speaks = timeout(self.limits.header_timeout, speaks_http2(&stream)) => match speaks {
                Ok(Some(speaks)) => speaks,
                // It said nothing, or went away.
                _ => return,
            },
        };
        let stream = TokioIo::new(PatientStream::new(stream, self.limits.body_timeout));
        let service = service_fn({
            let this = self.clone();
            move |request| this.clone().respond(request, peer.clone())
        });
        if is_http2 {
            let mut server = http2::Builder::new(Tracked(self.tasks.clone()));
            server
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX))
                .max_concurrent_streams(u32::try_from(self.limits.requests).unwrap_or(u32::MAX))
                .keep_alive_interval(self.limits.header_timeout)
                .keep_alive_timeout(PING_TIMEOUT);
            let connection = server.serve_connection(stream, service);
            self.until_closed(connection, http2::Connection::graceful_shutdown).await;
        } else {
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_timeout)
                .max_buf_size(self.limits.header_bytes.max(LEAST_BUFFER));
            let connection = server.serve_connection(stream, service);
            self.until_closed(connection, http1::Connection::graceful_shutdown).await;
        }
    }

    /// Drives a connection to its end. When the service closes, requests that have begun are finished, until it is killed.
    async fn until_closed<C: Future>(&self, connection: C, close: impl FnOnce(Pin<&mut C>)) {
        let mut connection = std::pin::pin!(connection);
        // Ends are no news: clients go away.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = self.closing.cancelled() => close(connection.as_mut()),
        }
        let _ = self.killed.run_until_cancelled(connection).await;
    }
}

/// Whether a client begins as HTTP/2 does, without taking anything of it. None if it went away.
async fn speaks_http2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    let begun = Instant::now();
    loop {
        let n = stream.peek(&mut first).await.ok()?;
        if n == 0 {
            return None;
        }
        if first[..n] != PREFACE[..n] {
            return Some(false);
        }
        if n == PREFACE.len() {
            return Some(true);
        }
        // A part of it is there already, so nothing tells of more.
        sleep(pause).await;
        pause = pause.max(begun.elapsed() / 4);
    }
}

/// Starts what HTTP/2 does beside the connection as a task of the service.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}
