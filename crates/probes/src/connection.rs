//! One connection for one request.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::dial::dial;
use crate::text;
use crate::tls::{self, TlsError};

/// The body of every request.
pub(crate) type Body = Full<Bytes>;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Dial(String),
    #[error("http: server gave HTTP response to HTTPS client")]
    HttpResponseToHttps,
    #[error("{0}")]
    Protocol(String),
}

impl From<TlsError> for ConnectionError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::HttpResponse => Self::HttpResponseToHttps,
            TlsError::Other(message) => Self::Protocol(message),
        }
    }
}

impl From<hyper::Error> for ConnectionError {
    fn from(error: hyper::Error) -> Self {
        Self::Protocol(text::connection_error(&error))
    }
}

/// A connection that is ready for its request. Dropping it closes it and ends its tasks.
pub(crate) struct Connection {
    sender: Sender,
    tasks: Tasks,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Connection {
    /// Connects without encryption.
    pub(crate) async fn plain(host: &str, port: u16, http2: bool) -> Result<Self, ConnectionError> {
        let stream = dial(host, port).await.map_err(ConnectionError::Dial)?;
        Self::handshake(TokioIo::new(stream), http2).await
    }

    /// Connects with TLS; the server chooses the version of HTTP.
    pub(crate) async fn encrypted(
        tls: &TlsConnector,
        host: &str,
        port: u16,
    ) -> Result<Self, ConnectionError> {
        let stream = dial(host, port).await.map_err(ConnectionError::Dial)?;
        let stream = tls::connect(tls, host, stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(tls::H2);
        Self::handshake(TokioIo::new(stream), http2).await
    }

    async fn handshake<I>(io: I, http2: bool) -> Result<Self, ConnectionError>
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let tasks = Tasks::default();
        let sender = if http2 {
            let (sender, connection) = http2::handshake(tasks.spawner(), io).await?;
            // How the connection ended, the request tells as well.
            tasks.spawner().execute(async { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tasks.spawner().execute(async { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Self { sender, tasks })
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Sends the request. The answer's body can be read for as long as the second part is kept.
    pub(crate) async fn send(
        self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Tasks), ConnectionError> {
        let response = match self.sender {
            Sender::Http1(mut sender) => sender.send_request(request).await?,
            Sender::Http2(mut sender) => sender.send_request(request).await?,
        };
        Ok((response, self.tasks))
    }
}

/// The tasks of one connection; they end with it.
#[derive(Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawner(&self) -> Spawner {
        Spawner(self.0.clone())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // The tasks hold the set, too, so that it does not end of itself.
        self.0.lock().abort_all();
    }
}

#[derive(Clone)]
struct Spawner(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.lock().spawn(task);
    }
}
