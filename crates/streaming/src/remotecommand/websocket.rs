//! A session over WebSocket: a channel for each of its streams. After `websocket.go` of `k8s.io/cri-streaming`, and of
//! `k8s.io/apiserver/pkg/util/proxy` for version 5.

use std::collections::BTreeSet;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Options, Resizes, Session};
use crate::connection::Connection;
use crate::websocket::channels::{Codec, Settings, serve, writer};
use crate::{Error, Timeouts};

const V1: &str = "channel.k8s.io";
const V1_BASE64: &str = "base64.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

/// What is supported. A client that names none speaks the first version.
pub(super) const PROTOCOLS: &[&str] = &[V5, V4, V4_BASE64, V1, V1_BASE64, ""];

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;

pub(super) async fn session<T>(
    io: T,
    protocol: &str,
    options: Options,
    timeouts: Timeouts,
) -> Result<Session, Error>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let codec = if matches!(protocol, V1_BASE64 | V4_BASE64) { Codec::Base64 } else { Codec::Binary };
    let settings = Settings {
        idle_timeout: timeouts.idle,
        codec,
        has_close_signal: protocol == V5,
        is_read: [STDIN, STDOUT, STDERR, ERROR, RESIZE].map(|it| is_read(it, options)).to_vec(),
        ends_with: BTreeSet::new(),
    };
    let (shared, mut readers, driver) = serve(io, settings);
    let connection = Connection::spawn(&shared, driver);

    // An empty message tells the client that the session stands.
    let first = [(options.stdout, STDOUT), (options.stderr, STDERR), (true, ERROR)];
    let (_, first) = first.into_iter().find(|(is_wanted, _)| *is_wanted).unwrap_or((true, ERROR));
    let mut hello = Vec::new();
    codec.encode(first, &[], &mut hello);
    shared.reply(hello).await.map_err(Error::Connection)?;

    let mut reader = |channel: u32| readers.get_mut(channel as usize).and_then(Option::take);
    Ok(Session {
        stdin: reader(STDIN),
        stdout: options.stdout.then(|| writer(&shared, STDOUT)),
        stderr: options.stderr.then(|| writer(&shared, STDERR)),
        resizes: reader(RESIZE).map(Resizes::new),
        stdin_reply: None,
        error: Some(writer(&shared, ERROR)),
        has_json_status: matches!(protocol, V4 | V4_BASE64 | V5),
        connection,
    })
}

fn is_read(channel: u32, options: Options) -> bool {
    match channel {
        STDIN => options.stdin,
        RESIZE => options.tty,
        _ => false,
    }
}
