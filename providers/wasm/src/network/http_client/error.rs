//! What guests hear of requests that failed.

use std::error::Error as StdError;
use std::io;

use wasmtime_wasi_http::Error;

use crate::network::names::LookupError;
use crate::network::policy::Refusal;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::network) enum ConnectError {
    #[error("the request names no valid host")]
    HostName,
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the pod's network policy refuses the address")]
    Refused(Refusal),
    #[error("connecting took too long")]
    Timeout,
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("no server can be trusted: {0}")]
    Trust(io::Error),
    #[error("the pod is gone")]
    PodGone,
    #[error("the request was sent outside the pod's network")]
    WrongThread,
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The error of wasi:http for a request that the client could not send.
pub(super) fn from_client(error: &hyper_util::client::legacy::Error) -> Error {
    tracing::debug!(error = error as &dyn StdError, "an outgoing request failed");
    if let Some(error) = find::<ConnectError>(error) {
        return from_connect(error);
    }
    match find::<hyper::Error>(error) {
        Some(hyper) if hyper.is_timeout() => Error::HttpResponseTimeout,
        Some(hyper) if hyper.is_incomplete_message() => Error::HttpResponseIncomplete,
        Some(hyper) if hyper.is_closed() || hyper.is_canceled() => Error::ConnectionTerminated,
        _ if find::<io::Error>(error).is_some() => Error::ConnectionTerminated,
        _ => Error::HttpProtocolError,
    }
}

fn from_connect(error: &ConnectError) -> Error {
    match error {
        ConnectError::HostName => Error::HttpRequestUriInvalid,
        ConnectError::Lookup(error) => from_lookup(*error),
        ConnectError::Refused(Refusal::Prohibited | Refusal::NotBindable) => Error::DestinationIpProhibited,
        ConnectError::Refused(Refusal::Unreachable) => Error::DestinationIpUnroutable,
        ConnectError::Refused(Refusal::Refused) => Error::ConnectionRefused,
        ConnectError::Timeout => Error::ConnectionTimeout,
        ConnectError::Io(error) => from_io(error),
        ConnectError::Tls(error) => from_tls(error),
        ConnectError::Trust(_) | ConnectError::PodGone | ConnectError::WrongThread => {
            Error::InternalError(Some(error.to_string()))
        }
    }
}

fn from_lookup(error: LookupError) -> Error {
    let rcode = match error {
        LookupError::Invalid => return Error::HttpRequestUriInvalid,
        LookupError::Temporary => return Error::DnsTimeout,
        LookupError::Denied => return Error::DestinationIpProhibited,
        LookupError::NotFound => "NXDOMAIN",
        LookupError::NoServers => "no name servers",
    };
    Error::DnsError { rcode: Some(rcode.into()), info_code: None }
}

fn from_io(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Error::ConnectionLimitReached,
        _ => Error::ConnectionTerminated,
    }
}

fn from_tls(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}

/// The first error of a type among an error and its causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}
