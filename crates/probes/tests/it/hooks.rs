use std::sync::Arc;

use coracle_core::ports::{HookError, ProbeTransport, Scheme};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::servers::{Server, Speaks, answer};
use crate::{get, transport, with_headers};

#[tokio::test]
async fn any_answer_is_good_enough() {
    for speaks in [Speaks::Http1, Speaks::Tls, Speaks::TlsH2] {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen_by_server = seen.clone();
        let server = Server::http(speaks, move |request| {
            let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
            seen_by_server.lock().push(format!("{} {agent}", request.uri().path()));
            async { answer(500, "whatever") }
        })
        .await;
        let scheme = if speaks == Speaks::Http1 { Scheme::Http } else { Scheme::Https };
        assert_eq!(transport().http_hook(&get(scheme, server.port, "bar")).await, Ok(()));
        assert_eq!(*seen.lock(), ["/bar kube-lifecycle/1.37"]);
    }
}

#[tokio::test]
async fn no_answer_is_a_failure() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let expected =
        format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(transport().http_hook(&get(Scheme::Http, port, "/")).await, Err(HookError::Failed(expected)));
}

#[tokio::test]
async fn a_server_without_tls_is_recognised() {
    let server = Server::http(Speaks::Http1, |_| async { answer(200, "") }).await;
    let request = with_headers(get(Scheme::Https, server.port, "/"), &[("Authorization", "secret")]);
    let error = transport().http_hook(&request).await.unwrap_err();
    assert!(matches!(error, HookError::HttpResponseToHttps(_)), "{error:?}");
    let ssh = Server::raw(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    let error = transport().http_hook(&get(Scheme::Https, ssh.port, "/")).await.unwrap_err();
    assert!(matches!(error, HookError::Failed(_)), "not every server without TLS speaks HTTP: {error:?}");
}

#[test]
fn values_of_headers_are_not_printed() {
    let request = with_headers(get(Scheme::Http, 80, "/"), &[("Authorization", "secret")]);
    let printed = format!("{request:?}");
    assert!(printed.contains("Authorization") && !printed.contains("secret"), "{printed}");
}
