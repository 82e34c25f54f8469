//! GET, for probes and for hooks (upstream: `pkg/probe/http/http.go`, `runHTTPHandler`).

use std::time::Duration;

use coracle_core::ports::{HookError, HttpGet, MAX_PROBE_OUTPUT, ProbeOutcome, Scheme};
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, ConnectionError, Tasks};
use crate::request::{Next, Target};
use crate::text;

/// Asks, and judges by the status.
pub(crate) async fn probe(
    tls: &TlsConnector,
    request: &HttpGet,
    user_agent: &str,
    timeout: Duration,
) -> ProbeOutcome {
    let deadline = Instant::now() + timeout;
    let (response, _tasks) = match timeout_at(deadline, fetch(tls, request, user_agent)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return ProbeOutcome::Failure(error.to_string()),
        Err(_) => {
            let url = Target::new(request, user_agent).map(|target| target.to_string()).unwrap_or_default();
            return ProbeOutcome::Failure(format!(
                "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ));
        }
    };
    let status = response.status().as_u16();
    let body = match timeout_at(deadline, read_at_most(response, MAX_PROBE_OUTPUT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return ProbeOutcome::Unknown(error),
        Err(_) => {
            let error =
                "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
            return ProbeOutcome::Unknown(error.to_owned());
        }
    };
    match status {
        200..300 => ProbeOutcome::Success(body),
        300..400 => ProbeOutcome::Warning(text::limited(
            format!("Probe terminated redirects, Response body: {body}").as_bytes(),
            MAX_PROBE_OUTPUT,
        )),
        // The body stays out of this: the message goes to everyone who may read Events.
        _ => ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Asks, and is content with any answer.
pub(crate) async fn hook(tls: &TlsConnector, request: &HttpGet, user_agent: &str) -> Result<(), HookError> {
    let answer = fetch(tls, request, user_agent).await;
    let (response, _tasks) = answer.map_err(|error| {
        let message = error.to_string();
        match error.cause {
            ConnectionError::HttpResponseToHttps => HookError::HttpResponseToHttps(message),
            _ => HookError::Failed(message),
        }
    })?;
    // A server may want to see that its answer was taken; what it says matters to nobody.
    let _ = read_at_most(response, MAX_PROBE_OUTPUT).await;
    Ok(())
}

/// Why a URL gave no answer (`url.Error`).
#[derive(Debug, thiserror::Error)]
#[error("Get {url:?}: {cause}")]
struct FetchError {
    url: String,
    cause: ConnectionError,
}

/// Asks, and follows redirects. The body can be read for as long as the second part is kept.
async fn fetch(
    tls: &TlsConnector,
    request: &HttpGet,
    user_agent: &str,
) -> Result<(Response<Incoming>, Tasks), FetchError> {
    let unusable = |url: String, message| FetchError { url, cause: ConnectionError::Protocol(message) };
    let mut target =
        Target::new(request, user_agent).map_err(|message| unusable(request.path.clone(), message))?;
    loop {
        let (response, tasks) = exchange(tls, &target, request.http2)
            .await
            .map_err(|cause| FetchError { url: target.to_string(), cause })?;
        match target.next(&response).map_err(|message| unusable(target.to_string(), message))? {
            Next::End => return Ok((response, tasks)),
            Next::Follow(next) => target = *next,
        }
    }
}

async fn exchange(
    tls: &TlsConnector,
    target: &Target,
    http2: bool,
) -> Result<(Response<Incoming>, Tasks), ConnectionError> {
    let (host, port) = (target.host(), target.port());
    let connection = match target.scheme() {
        Scheme::Http => Connection::plain(host, port, http2).await?,
        Scheme::Https => Connection::encrypted(tls, host, port).await?,
    };
    let request = target.request(connection.is_http2()).map_err(ConnectionError::Protocol)?;
    connection.send(request).await
}

/// The beginning of a body; the rest is left.
async fn read_at_most(response: Response<Incoming>, limit: usize) -> Result<String, String> {
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while bytes.len() <= limit
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| text::connection_error(&error))?;
        bytes.extend(frame.data_ref().into_iter().flatten());
    }
    Ok(text::limited(&bytes, limit))
}
