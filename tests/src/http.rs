//! Requests as a user's `curl` makes them.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks once; any status is an answer. Each call is a connection of its own.
pub fn get(url: &str) -> Result<Answer> {
    agent().get(url).call().and_then(answer).with_context(|| format!("GET {url}"))
}

/// Sends a body and gives the answer, as [`get`] does.
pub fn post(url: &str, body: &str) -> Result<Answer> {
    agent().post(url).send(body).and_then(answer).with_context(|| format!("POST {url}"))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
    config.http_status_as_error(false).build().into()
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let body = response.body_mut().read_to_string()?;
    Ok(Answer { status: response.status().as_u16(), body })
}
