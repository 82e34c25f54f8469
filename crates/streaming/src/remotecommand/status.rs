//! What the client is told at the end: text up to version 3, since version 4 a `Status` of Kubernetes' API. After
//! `status.go` and `exec.go`.

use serde::Serialize;

/// How a command ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// With exit code 0; or the attached container ended.
    Success,
    /// With another exit code.
    NonZeroExit {
        /// The exit code.
        code: i32,
        /// What to say of it, after "command terminated with non-zero exit code: ".
        message: String,
    },
    /// It could not be run, or was lost on the way; with a message that says so.
    Failure(String),
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

impl Outcome {
    /// For versions 1 to 3: nothing, or what went wrong (`v1WriteStatusFunc`).
    pub(super) fn text(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::NonZeroExit { message, .. } => {
                format!("command terminated with non-zero exit code: {message}")
            }
            Self::Failure(message) => format!("Internal error occurred: {message}"),
        }
    }

    /// Since version 4 (`v4WriteStatusFunc`).
    pub(super) fn json(&self) -> String {
        let (status, message) = ("Failure", self.text());
        let status = match self {
            Self::Success => Status { status: "Success", message, reason: "", details: None, code: None },
            Self::NonZeroExit { code, .. } => {
                let causes = [Cause { reason: "ExitCode", message: code.to_string() }];
                Status {
                    status,
                    message,
                    reason: "NonZeroExitCode",
                    details: Some(Details { causes }),
                    code: None,
                }
            }
            Self::Failure(_) => {
                Status { status, message, reason: "InternalError", details: None, code: Some(500) }
            }
        };
        // A structure of strings and numbers has a JSON form.
        serde_json::to_string(&status).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_are_told() {
        assert_eq!(
            (Outcome::Success.text(), Outcome::Success.json()),
            (String::new(), r#"{"status":"Success"}"#.into())
        );
        let exit = Outcome::NonZeroExit { code: 3, message: "exit status 3".into() };
        assert_eq!(exit.text(), "command terminated with non-zero exit code: exit status 3");
        assert_eq!(
            exit.json(),
            r#"{"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        let failure = Outcome::Failure("error executing command in container: \"x\"".into());
        assert_eq!(
            failure.json(),
            r#"{"status":"Failure","message":"Internal error occurred: error executing command in container: \"x\"","reason":"InternalError","code":500}"#
        );
    }
}
