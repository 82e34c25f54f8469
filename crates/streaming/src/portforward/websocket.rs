//! Over WebSocket, without SPDY in it: two channels for each port that the request names, for one connection each. After
//! `websocket.go`.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{Forward, Forwarder, Source};
use crate::connection::Connection;
use crate::websocket::channels::{Codec, Settings, serve, writer};
use crate::{Error, Rejection, Timeouts};

const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";

/// What is supported. A client that names none speaks the first.
pub(super) const PROTOCOLS: &[&str] = &[V4, V4_BASE64, ""];

/// A channel's number is a byte.
const MAX_PORTS: usize = 127;

/// The ports that a request names (`NewV4Options`).
pub(super) fn ports(query: &str) -> Result<Vec<u16>, Rejection> {
    let mut ports = Vec::new();
    for (_, value) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "port") {
        if value.is_empty() {
            return Err(Rejection::bad_request("query parameter \"port\" cannot be empty"));
        }
        for port in value.split(',') {
            match port.parse() {
                Ok(0) => return Err(Rejection::bad_request(format!("port {port:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(error) => {
                    let message = format!("unable to parse {value:?} as a port: {port:?}: {error}");
                    return Err(Rejection::bad_request(message));
                }
            }
        }
    }
    match ports.len() {
        0 => Err(Rejection::bad_request("query parameter \"port\" is required")),
        1..=MAX_PORTS => Ok(ports),
        many => {
            Err(Rejection::bad_request(format!("{many} ports: at most {MAX_PORTS} can be forwarded at once")))
        }
    }
}

pub(super) async fn forwarder<T>(
    io: T,
    protocol: &str,
    ports: &[u16],
    timeouts: Timeouts,
) -> Result<Forwarder, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let channels = (0u32..).step_by(2).take(ports.len());
    let settings = Settings {
        idle_timeout: timeouts.idle,
        codec: if protocol == V4_BASE64 { Codec::Base64 } else { Codec::Binary },
        has_close_signal: false,
        is_read: [true, false].repeat(ports.len()),
        ends_with: channels.clone().flat_map(|data| [data, data + 1]).collect(),
    };
    let (shared, readers, driver) = serve(io, settings);
    let connection = Connection::spawn(&shared, driver);
    let mut forwards = Vec::with_capacity(ports.len());
    for ((port, channel), read) in ports.iter().zip(channels).zip(readers.into_iter().flatten()) {
        let (mut data, mut error) = (writer(&shared, channel), writer(&shared, channel + 1));
        // Each begins with the port, so that clients see that it stands.
        data.write_all(&port.to_le_bytes()).await.map_err(Error::Connection)?;
        error.write_all(&port.to_le_bytes()).await.map_err(Error::Connection)?;
        forwards.push(Forward::new(*port, read, data, error));
    }
    Ok(Forwarder { source: Source::Named(forwards.into_iter()), connection })
}
