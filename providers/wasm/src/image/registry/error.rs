//! What registries do wrong.

use coracle_provider::ErrorKind;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::{HostsError, read_at_most};
use crate::image::digest::Digest;

/// An error page is shown in one line; a longer one would be for filling the node's memory.
const MAX_ERROR_BYTES: u64 = 16 * 1024;
const MAX_SHOWN_CHARS: usize = 200;

/// Why a registry did not give what it was asked for. Continues "image X …".
#[derive(Debug, thiserror::Error)]
pub(in crate::image) enum RegistryError {
    #[error("could not be pulled, its registry can't be reached: {0}")]
    Unreachable(String),
    #[error("could not be pulled, its registry stopped answering")]
    Stalled,
    #[error("could not be pulled, its registry failed: {0}")]
    Failed(String),
    #[error("was not found in its registry")]
    NotFound,
    #[error("names a blob {0} that its registry does not have; push the image again")]
    BlobNotFound(Digest),
    #[error("does not exist, or needs credentials: name a secret in imagePullSecrets")]
    CredentialsNeeded,
    #[error("could not be pulled, its registry refused the credentials, or they are not for this repository")]
    CredentialsRefused,
    #[error("could not be pulled: {0}")]
    Auth(&'static str),
    #[error("could not be pulled, its registry refused the request: {0}")]
    Refused(String),
    #[error("has a manifest or token of more than {0} bytes, which is the limit")]
    TooLong(u64),
    #[error("has a manifest that does not match {0}; the registry or something on the way has changed it")]
    WrongManifest(Digest),
    #[error("could not be pulled, TLS can't be set up on this node: {0}")]
    Client(String),
    #[error("could not be pulled: {0}")]
    Hosts(#[from] HostsError),
    #[error("could not be pulled: the node's hosts.toml for its registry lets no server be asked")]
    NoServer,
}

impl RegistryError {
    /// The class that the pipeline knows.
    pub(in crate::image) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable(_) | Self::Stalled | Self::Failed(_) => ErrorKind::RegistryUnavailable,
            Self::CredentialsNeeded | Self::CredentialsRefused | Self::Auth(_) => ErrorKind::Unauthorized,
            Self::NotFound
            | Self::BlobNotFound(_)
            | Self::Refused(_)
            | Self::TooLong(_)
            | Self::WrongManifest(_) => ErrorKind::ImageUnusable,
            Self::Client(_) | Self::Hosts(_) | Self::NoServer => ErrorKind::Internal,
        }
    }

    /// Whether the same request may get another answer in a moment.
    pub(in crate::image) fn may_pass(&self) -> bool {
        self.kind() == ErrorKind::RegistryUnavailable
    }

    /// A request or a body that did not come through.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        if error.is_builder() {
            return Self::Auth("the credentials hold characters that can't be sent");
        }
        if error.is_redirect() {
            return Self::Refused(root_cause(&error));
        }
        if error.is_timeout() && !error.is_connect() {
            return Self::Stalled;
        }
        Self::Unreachable(root_cause(&error))
    }

    /// An answer that is not the one hoped for.
    pub(super) async fn refused(status: StatusCode, mut response: Response) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            _ => {
                let body = read_at_most(&mut response, MAX_ERROR_BYTES).await.unwrap_or_default();
                let shown = describe(status, &body);
                let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                if may_pass { Self::Failed(shown) } else { Self::Refused(shown) }
            }
        }
    }
}

/// The innermost reason, which is the one that says something: "Connection refused (os error 111)".
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    printable(&cause.to_string())
}

/// The status, and the registry's own words where it has sent some (distribution specification, "Error Codes").
fn describe(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    match envelope.as_ref().and_then(|envelope| envelope.errors.first()) {
        Some(first) => printable(&format!("{status}: {} {}", first.code, first.message)),
        None => status.to_string(),
    }
}

/// Text of strangers ends up in events and terminals: one short line of plain characters.
fn printable(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN_CHARS).collect()
}
