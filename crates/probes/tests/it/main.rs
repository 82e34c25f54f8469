//! Probes and hooks against servers on this machine.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod grpc;
mod hooks;
mod http;
mod servers;
mod tcp;

use std::time::Duration;

use coracle_core::ports::{HttpGet, Scheme};
use coracle_probes::Transport;

/// Long enough for every server that answers.
const PATIENCE: Duration = Duration::from_secs(20);

fn transport() -> Transport {
    Transport::new("v1.37.2").unwrap()
}

fn get(scheme: Scheme, port: u16, path: &str) -> HttpGet {
    let (host, path) = ("127.0.0.1".to_owned(), path.to_owned());
    HttpGet { scheme, host, port, path, headers: Vec::new(), http2: false }
}

fn with_headers(request: HttpGet, headers: &[(&str, &str)]) -> HttpGet {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    HttpGet { headers, ..request }
}
