//! Why a call to the apiserver failed.

use std::time::Duration;

/// A failed call to the apiserver, as far as the core has to tell cases apart.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// 404.
    #[error("{0}")]
    NotFound(String),
    /// 409: another writer was first, or the object has another UID.
    #[error("{0}")]
    Conflict(String),
    /// 401 or 403.
    #[error("{0}")]
    Forbidden(String),
    /// 400 or 422: the call can never work as it is.
    #[error("{0}")]
    Invalid(String),
    /// 429.
    #[error("{message}")]
    TooManyRequests {
        /// What the server said.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// 5xx, a time-out, or no connection.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    /// Whether the same call may work later without anybody changing the object.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TooManyRequests { .. } | Self::Unavailable(_))
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}
