//! An HTTP client with one connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::support::within;

pub(crate) struct Client(http1::SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn try_post(&mut self, path: &str, body: &str) -> hyper::Result<(StatusCode, String)> {
        let request = Request::post(path).header("host", "test").body(Full::from(body.to_owned())).unwrap();
        within(self.0.ready()).await?;
        let response = within(self.0.send_request(request)).await?;
        let status = response.status();
        let body = within(response.into_body().collect()).await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        self.try_post(path, "").await.unwrap()
    }
}
