//! gRPC health checks (upstream: `pkg/probe/grpc`).

use std::time::Duration;

use coracle_core::ports::{GrpcCheck, MAX_PROBE_OUTPUT, ProbeOutcome};
use http::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::connection::{Body, Connection, ConnectionError};
use crate::health::{ServingStatus, decode_response, encode_request};
use crate::text::{self, join_host_port};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// Names of status codes as Go prints them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: usize = 2;
const DEADLINE_EXCEEDED: usize = 4;
const UNIMPLEMENTED: usize = 12;
const INTERNAL: usize = 13;
const UNAVAILABLE: usize = 14;

/// A status that is not OK.
struct RpcError {
    code: usize,
    message: String,
}

/// Asks for the health of a service.
pub(crate) async fn probe(
    tls: &TlsConnector,
    request: &GrpcCheck,
    user_agent: &str,
    timeout: Duration,
) -> ProbeOutcome {
    let deadline = Instant::now() + timeout;
    let address = join_host_port(&request.host, request.port);
    let connection = match timeout_at(deadline, connect(tls, request)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return failure(format!("error: failed to connect service at {address:?}: {error}"));
        }
        Err(_) => {
            let timeout = text::duration(timeout);
            return failure(format!(
                "timeout: failed to connect service {address:?} within {timeout}: context deadline exceeded"
            ));
        }
    };
    let result = match timeout_at(deadline, check(connection, request, &address, user_agent)).await {
        Ok(result) => result,
        Err(_) => Err(RpcError { code: DEADLINE_EXCEEDED, message: String::new() }),
    };
    match result {
        Ok(ServingStatus::SERVING) => ProbeOutcome::Success("service healthy".to_owned()),
        Ok(status) => failure(format!("service unhealthy (responded with \"{status}\")")),
        Err(RpcError { code: DEADLINE_EXCEEDED, .. }) => {
            failure(format!("timeout: health rpc did not complete within {}", text::duration(timeout)))
        }
        Err(RpcError { code: UNIMPLEMENTED, message }) => failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(RpcError { code, message }) => {
            let code = CODES.get(code).map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
            failure(format!("error: health rpc probe failed: rpc error: code = {code} desc = {message}"))
        }
    }
}

fn failure(message: String) -> ProbeOutcome {
    ProbeOutcome::Failure(text::limited(message.as_bytes(), MAX_PROBE_OUTPUT))
}

async fn connect(tls: &TlsConnector, request: &GrpcCheck) -> Result<Connection, ConnectionError> {
    if !request.tls {
        return Connection::plain(&request.host, request.port, true).await;
    }
    let connection = Connection::encrypted(tls, &request.host, request.port).await?;
    if !connection.is_http2() {
        return Err(ConnectionError::Protocol("the server does not speak HTTP/2".to_owned()));
    }
    Ok(connection)
}

async fn check(
    connection: Connection,
    request: &GrpcCheck,
    address: &str,
    user_agent: &str,
) -> Result<ServingStatus, RpcError> {
    let call = call(request, address, user_agent)
        .map_err(|error| RpcError { code: INTERNAL, message: error.to_string() })?;
    let answer = connection.send(call).await;
    let (response, _tasks) =
        answer.map_err(|error| RpcError { code: UNAVAILABLE, message: error.to_string() })?;
    read(response).await
}

fn call(request: &GrpcCheck, address: &str, user_agent: &str) -> http::Result<Request<Body>> {
    let scheme = if request.tls { "https" } else { "http" };
    Request::post(format!("{scheme}://{address}{METHOD}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, user_agent)
        .body(Full::new(encode_request(&request.service)))
}

async fn read(response: Response<Incoming>) -> Result<ServingStatus, RpcError> {
    if response.status() != StatusCode::OK {
        let message = format!("unexpected HTTP status code received from server: {}", response.status());
        return Err(RpcError { code: UNKNOWN, message });
    }
    // A call that fails at once has its status in the headers.
    status(response.headers()).unwrap_or(Ok(()))?;
    let body = Limited::new(response.into_body(), MAX_PROBE_OUTPUT).collect().await;
    let body = body.map_err(|error| RpcError { code: INTERNAL, message: error.to_string() })?;
    let missing = || RpcError {
        code: INTERNAL,
        message: "server closed the stream without sending trailers".to_owned(),
    };
    body.trailers().and_then(status).ok_or_else(missing)??;
    decode_response(&body.to_bytes()).ok_or_else(|| RpcError {
        code: INTERNAL,
        message: "the answer is no HealthCheckResponse".to_owned(),
    })
}

/// The status of a call; none if these headers have none.
fn status(headers: &HeaderMap) -> Option<Result<(), RpcError>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok());
    let message = headers.get("grpc-message").and_then(|m| m.to_str().ok()).unwrap_or_default();
    let message = percent_decode_str(message).decode_utf8_lossy().into_owned();
    Some(match code.unwrap_or(UNKNOWN) {
        0 => Ok(()),
        code => Err(RpcError { code, message }),
    })
}
