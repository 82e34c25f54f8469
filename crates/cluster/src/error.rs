//! What kube's errors mean to the core.

use std::error::Error as StdError;
use std::time::Duration;

use coracle_core::ports::ApiError;
use kube::core::Status;

/// Sorts a failed call into the cases that the core tells apart.
pub(crate) fn api_error(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => from_status(&status),
        // The decoder's own text can quote the value that it stumbled over, and that may be a secret.
        kube::Error::SerdeError(e) => undecodable(&e),
        kube::Error::Service(e) => ApiError::Unavailable(chain(e.as_ref())),
        other => ApiError::Unavailable(chain(&other)),
    }
}

/// An answer that is not what the API promises.
pub(crate) fn undecodable(error: &serde_json::Error) -> ApiError {
    ApiError::Unavailable(format!(
        "the apiserver's answer cannot be decoded (line {}, column {})",
        error.line(),
        error.column()
    ))
}

/// Sorts an answer of the server by its HTTP status, and by its reason where a proxy lost the status.
pub(crate) fn from_status(status: &Status) -> ApiError {
    let message = one_line(if status.message.is_empty() { &status.reason } else { &status.message });
    match status.code {
        401 | 403 => ApiError::Forbidden(message),
        404 => ApiError::NotFound(message),
        409 => ApiError::Conflict(message),
        429 => ApiError::TooManyRequests { message, retry_after: retry_after(status) },
        408 | 410 => ApiError::Unavailable(message),
        // A patch with the UID of another object of the same name tries to change what cannot change.
        422 if names_field(status, "metadata.uid") => ApiError::Conflict(message),
        400..=499 => ApiError::Invalid(message),
        _ if status.is_not_found() => ApiError::NotFound(message),
        _ if status.is_conflict() => ApiError::Conflict(message),
        _ => ApiError::Unavailable(message),
    }
}

fn names_field(status: &Status, field: &str) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.field == field)
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// An error with its causes, each once, on one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one_line(&error.to_string());
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn status(code: u16, reason: &str) -> Status {
        Status::failure("pods \"a\"\n is wrong", reason).with_code(code)
    }

    #[test]
    fn statuses_map_to_the_cores_cases() {
        type Check = fn(&ApiError) -> bool;
        let table: &[(u16, &str, Check)] = &[
            (400, "BadRequest", |e| matches!(e, ApiError::Invalid(_))),
            (401, "Unauthorized", |e| matches!(e, ApiError::Forbidden(_))),
            (403, "Forbidden", |e| matches!(e, ApiError::Forbidden(_))),
            (404, "NotFound", ApiError::is_not_found),
            (408, "", ApiError::is_retryable),
            (409, "Conflict", |e| matches!(e, ApiError::Conflict(_))),
            (409, "AlreadyExists", |e| matches!(e, ApiError::Conflict(_))),
            (410, "Expired", ApiError::is_retryable),
            (422, "Invalid", |e| matches!(e, ApiError::Invalid(_))),
            (429, "TooManyRequests", ApiError::is_retryable),
            (500, "InternalError", ApiError::is_retryable),
            (503, "", ApiError::is_retryable),
            (504, "Timeout", ApiError::is_retryable),
            (0, "NotFound", ApiError::is_not_found),
            (0, "Conflict", |e| matches!(e, ApiError::Conflict(_))),
        ];
        for (code, reason, check) in table {
            let error = from_status(&status(*code, reason));
            assert!(check(&error), "{code} {reason}: {error:?}");
            assert_eq!(error.to_string(), "pods \"a\" is wrong");
        }
    }

    fn details(causes: Vec<StatusCause>, retry_after_seconds: u32) -> StatusDetails {
        let (name, group, kind, uid) = Default::default();
        StatusDetails { name, group, kind, uid, causes, retry_after_seconds }
    }

    #[test]
    fn another_uid_is_a_conflict() {
        let cause = |field: &str| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: "field is immutable".to_owned(),
            field: field.to_owned(),
        };
        let error = |field| from_status(&status(422, "Invalid").with_details(details(vec![cause(field)], 0)));
        assert!(matches!(error("metadata.uid"), ApiError::Conflict(_)));
        assert!(matches!(error("status.phase"), ApiError::Invalid(_)));
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        let status = status(429, "").with_details(details(vec![], 3));
        let ApiError::TooManyRequests { retry_after, .. } = from_status(&status) else { panic!("not a 429") };
        assert_eq!(retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_undecodable_answer_does_not_quote_itself() {
        let error = serde_json::from_str::<u32>("\"s3cret\"").unwrap_err();
        assert!(error.to_string().contains("s3cret"));
        assert!(!api_error(kube::Error::SerdeError(error)).to_string().contains("s3cret"));
    }
}
