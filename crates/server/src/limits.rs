//! What a client may use up.

use std::time::Duration;

/// What clients may use up. Each limit names the attack that it stops; the defaults leave a busy cluster room.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. Attack: open connections until the kubelet is out of descriptors or memory.
    pub max_connections: usize,
    /// Connections at once from one address. Attack: a single pod takes all connections and so cuts the node off from
    /// its apiserver.
    pub max_connections_per_peer: usize,
    /// From the accepted connection to the finished TLS handshake. Attack: connect and say nothing.
    pub tls_handshake_timeout: Duration,
    /// A connection that has had no request allowed by then is closed. Attack: hold connections open without
    /// credentials, by sending slowly, by idling, or by pinging over HTTP/2.
    pub unauthorized_connection_timeout: Duration,
    /// From the first byte of an HTTP/1 request, or the end of the last one, to the end of its headers. Attack:
    /// slowloris, a header sent one byte at a time.
    pub header_read_timeout: Duration,
    /// Size of all headers of a request, in bytes. Attack: headers that grow until the kubelet is out of memory.
    pub max_header_bytes: usize,
    /// HTTP/2 requests at once on one connection. Attack: one connection that carries unlimited work.
    pub max_concurrent_streams: u32,
    /// How often an HTTP/2 peer has to answer a ping, and how long TCP idles before the first probe. Attack (or
    /// accident): peers that vanish and leave followed logs behind.
    pub keep_alive_interval: Duration,
    /// Logs that are read at once. Attack: an allowed but runaway client follows logs until the node is out of
    /// descriptors or memory; each has a file open and may hold some 100 KB.
    pub max_log_streams: usize,
    /// Sessions at once: exec, attach, port-forward and run. Attack: an allowed but runaway client opens sessions until
    /// the node is out of memory; each may hold half a megabyte.
    pub max_sessions: usize,
    /// How long requests under way may go on after a shutdown began.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_peer: 512,
            tls_handshake_timeout: Duration::from_secs(10),
            unauthorized_connection_timeout: Duration::from_secs(60),
            header_read_timeout: Duration::from_secs(30),
            max_header_bytes: 64 * 1024,
            max_concurrent_streams: 100,
            keep_alive_interval: Duration::from_secs(15),
            max_log_streams: 1024,
            max_sessions: 512,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
