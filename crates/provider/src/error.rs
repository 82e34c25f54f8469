//! What can go wrong in a provider.

use serde::{Deserialize, Serialize};

/// The result of a provider's call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, as far as the pipeline has to tell cases apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The sandbox, container or image does not exist.
    NotFound,
    /// Another object has this name or this resource (a port, for example).
    AlreadyExists,
    /// The caller asked for something that can never work; repeating it as it is makes no sense.
    InvalidArgument,
    /// The image reference does not parse (upstream: `InvalidImageName`).
    InvalidImageName,
    /// The registry could not be reached (upstream: `RegistryUnavailable`).
    RegistryUnavailable,
    /// The registry has no such image, or the image is of no kind that this provider runs.
    ImageUnusable,
    /// The registry wants other credentials.
    Unauthorized,
    /// The provider is not there, or not ready yet; the same call may work later.
    Unavailable,
    /// The call took longer than its deadline.
    DeadlineExceeded,
    /// A limit of the node or of the pod stands in the way.
    ResourceExhausted,
    /// The provider does not have this feature; the message names it.
    Unimplemented,
    /// Everything else.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing the pod.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::DeadlineExceeded
                | Self::ResourceExhausted
                | Self::RegistryUnavailable
                | Self::Internal
        )
    }
}

/// A failed call: what failed, on which object, and why, in one line that a user can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// One line for a person; names the object and says what to do where that is known.
    pub message: String,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The object is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The call can never work as it is.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// A fault of the provider or of the node.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The provider lacks `feature`.
    pub fn unimplemented(feature: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Unimplemented, format!("{feature} is not supported by this provider"))
    }

    /// Whether the object was not there: for a removal that is success.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}
