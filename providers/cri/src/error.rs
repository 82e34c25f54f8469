//! What a runtime's refusal means to the pipeline.

use coracle_provider::{Error, ErrorKind};
use tonic::{Code, Status};

/// An error of a runtime, which tells most things in words. Its text goes on as it is: it is what upstream shows.
pub(crate) fn from_status(call: &str, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unimplemented => ErrorKind::Unimplemented,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, one_line(call, status.message()))
}

/// An error of a pull. containerd's registry errors have no codes of their own but "not found", CRI-O's are named as in
/// k8s.io/cri-api's `errors.go`.
pub(crate) fn from_pull_status(image: &str, status: &Status) -> Error {
    let message = status.message();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let kind = if says(&["invalid reference format", "failed to parse image reference"]) {
        ErrorKind::InvalidImageName
    } else if says(&[
        "authorization failed",
        "pull access denied",
        "401 Unauthorized",
        "403 Forbidden",
        "no basic auth",
    ]) {
        ErrorKind::Unauthorized
    } else if status.code() == Code::NotFound || says(&["no match for platform", "manifest unknown"]) {
        ErrorKind::ImageUnusable
    } else if says(&["RegistryUnavailable", "failed to do request", "connection refused", "no such host"]) {
        ErrorKind::RegistryUnavailable
    } else {
        from_status("", status).kind
    };
    Error::new(kind, one_line(&format!("pulling {image:?}"), message))
}

fn one_line(what: &str, message: &str) -> String {
    format!("{what}: {}", message.trim().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of containerd 1.6.
    #[test]
    fn pulls_say_why_they_failed() {
        let kind = |code, message: &str| from_pull_status("i", &Status::new(code, message)).kind;
        let resolve = |why: &str| format!("failed to resolve reference \"localhost:1/i:1\": {why}");
        assert_eq!(kind(Code::NotFound, &resolve("localhost:1/i:1: not found")), ErrorKind::ImageUnusable);
        let refused = resolve("failed to do request: Head \"http://localhost:1/v2/\": connection refused");
        assert_eq!(kind(Code::Unknown, &refused), ErrorKind::RegistryUnavailable);
        let denied = resolve("pull access denied, repository does not exist or may require authorization");
        assert_eq!(kind(Code::Unknown, &denied), ErrorKind::Unauthorized);
        let invalid = "failed to parse image reference \"X\": invalid reference format";
        assert_eq!(kind(Code::Unknown, invalid), ErrorKind::InvalidImageName);
        assert_eq!(kind(Code::Unavailable, "connection closed"), ErrorKind::Unavailable);
        assert_eq!(kind(Code::Unknown, "failed to extract layer: no space left"), ErrorKind::Internal);
    }

    #[test]
    fn an_error_is_one_line_with_the_call_before_it() {
        let error = from_status("StartContainer", &Status::new(Code::Unknown, "runc: a\nb\n"));
        assert_eq!(error.message, "StartContainer: runc: a b");
    }
}
