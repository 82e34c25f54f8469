use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use coracle_core::ports::{GrpcCheck, ProbeOutcome, ProbeTransport};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;

use crate::servers::{Answer, Server, Speaks, answer};
use crate::{PATIENCE, transport};

fn check(port: u16, service: &str) -> GrpcCheck {
    GrpcCheck { host: "127.0.0.1".into(), port, service: service.into(), tls: false }
}

fn failure(message: impl Into<String>) -> ProbeOutcome {
    ProbeOutcome::Failure(message.into())
}

/// An answer with a serving status, and OK in the trailers.
fn serving(status: u8) -> Answer {
    answered(vec![0, 0, 0, 0, 2, 8, status], Some("0"), "")
}

fn answered(body: Vec<u8>, code: Option<&'static str>, message: &'static str) -> Answer {
    let trailers = code.map(|code| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        trailers.insert("grpc-message", message.parse().unwrap());
        Ok::<_, Infallible>(trailers)
    });
    let body = Full::new(Bytes::from(body)).with_trailers(async move { trailers });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

/// What a server answers that has no body at all.
fn failed(code: &str, message: &str) -> Answer {
    let mut response = answer(200, "");
    response.headers_mut().insert("grpc-status", code.parse().unwrap());
    response.headers_mut().insert("grpc-message", message.parse().unwrap());
    response
}

/// A health server: the service's name says how it is.
async fn health(speaks: Speaks) -> Server {
    Server::http(speaks, |request| async move {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.method, "POST");
        assert_eq!(parts.headers["content-type"], "application/grpc");
        assert_eq!(parts.headers["te"], "trailers");
        assert_eq!(parts.headers["user-agent"], "kube-probe/1.37");
        if parts.uri.path() != "/grpc.health.v1.Health/Check" {
            return failed("12", "unknown%20method");
        }
        let message = body.collect().await.unwrap().to_bytes();
        match message.get(7..).unwrap_or_default() {
            b"" | b"up" => serving(1),
            b"down" => serving(2),
            b"lost" => serving(3),
            b"slow" => std::future::pending().await,
            b"denied" => answered(Vec::new(), Some("7"), "not%20for%20you"),
            b"old" => failed("12", "unknown service grpc.health.v1.Health"),
            b"garbage" => answered(vec![0, 0, 0, 0, 1, 0xff], Some("0"), ""),
            b"torn" => answered(vec![0, 0, 0, 0, 2, 8, 1], None, ""),
            b"huge" => answered(vec![0; 1 << 20], Some("0"), ""),
            _ => failed("5", "unknown service"),
        }
    })
    .await
}

#[tokio::test]
async fn what_the_service_says_decides() {
    let server = health(Speaks::H2c).await;
    let cases = [
        ("", ProbeOutcome::Success("service healthy".into())),
        ("up", ProbeOutcome::Success("service healthy".into())),
        ("down", failure("service unhealthy (responded with \"NOT_SERVING\")")),
        ("lost", failure("service unhealthy (responded with \"SERVICE_UNKNOWN\")")),
        (
            "other",
            failure("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ),
        (
            "denied",
            failure("error: health rpc probe failed: rpc error: code = PermissionDenied desc = not for you"),
        ),
        (
            "old",
            failure(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
                 unknown service grpc.health.v1.Health",
            ),
        ),
        (
            "garbage",
            failure(
                "error: health rpc probe failed: rpc error: code = Internal desc = the answer is no \
                 HealthCheckResponse",
            ),
        ),
        (
            "torn",
            failure(
                "error: health rpc probe failed: rpc error: code = Internal desc = server closed the stream \
                 without sending trailers",
            ),
        ),
    ];
    for (service, expected) in cases {
        let outcome = transport().grpc(&check(server.port, service), PATIENCE).await;
        assert_eq!(outcome, expected, "{service}");
    }
    let huge = transport().grpc(&check(server.port, "huge"), PATIENCE).await;
    assert!(matches!(huge, ProbeOutcome::Failure(_)), "{huge:?}");
}

#[tokio::test]
async fn with_tls() {
    let server = health(Speaks::TlsH2).await;
    let encrypted = GrpcCheck { tls: true, ..check(server.port, "") };
    let outcome = transport().grpc(&encrypted, PATIENCE).await;
    assert_eq!(outcome, ProbeOutcome::Success("service healthy".into()));
    let outcome = transport().grpc(&check(server.port, ""), Duration::from_secs(2)).await;
    assert!(matches!(outcome, ProbeOutcome::Failure(_)), "without it: {outcome:?}");
}

#[tokio::test]
async fn a_call_that_takes_too_long() {
    let server = health(Speaks::H2c).await;
    let outcome = transport().grpc(&check(server.port, "slow"), Duration::from_secs(1)).await;
    assert_eq!(outcome, failure("timeout: health rpc did not complete within 1s"));
}

#[tokio::test]
async fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let outcome = transport().grpc(&check(port, ""), PATIENCE).await;
    assert_eq!(
        outcome,
        failure(format!(
            "error: failed to connect service at \"127.0.0.1:{port}\": \
             dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    );
}

#[tokio::test]
async fn a_server_that_speaks_another_protocol() {
    let server = Server::http(Speaks::Http1, |_| async { answer(200, "") }).await;
    let outcome = transport().grpc(&check(server.port, ""), PATIENCE).await;
    assert!(matches!(outcome, ProbeOutcome::Failure(_)), "{outcome:?}");
    let server = Server::http(Speaks::H2c, |_| async { answer(404, "") }).await;
    let outcome = transport().grpc(&check(server.port, ""), PATIENCE).await;
    assert_eq!(
        outcome,
        failure(
            "error: health rpc probe failed: rpc error: code = Unknown desc = unexpected HTTP status code \
             received from server: 404 Not Found"
        )
    );
}
