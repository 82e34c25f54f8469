//! Requests to the apiserver, counted (upstream: client-go's `rest_client_requests_total`).

use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_core::metrics::REST_CLIENT_REQUESTS;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tower::Service;

/// What client-go calls the code of a request that had no answer.
const NO_ANSWER: &str = "<error>";

/// Passes requests on, and counts their answers.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    service: S,
    /// The apiserver, as host and port.
    host: Arc<str>,
}

impl<S> Counted<S> {
    pub(crate) fn new(service: S, host: Arc<str>) -> Self {
        Self { service, host }
    }
}

impl<S, I, O> Service<Request<I>> for Counted<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
{
    type Response = Response<O>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<O>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let (method, host) = (request.method().clone(), self.host.clone());
        let answer = self.service.call(request);
        let count = move |answer: &Result<Response<O>, S::Error>| {
            let status = answer.as_ref().ok().map(Response::status);
            let code = status.as_ref().map_or(NO_ANSWER, StatusCode::as_str);
            REST_CLIENT_REQUESTS.with_label_values(&[code, &host, method.as_str()]).inc();
        };
        async move {
            let answer = answer.await;
            count(&answer);
            answer
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn answers_are_counted_by_their_code_and_failures_as_errors() {
        let service = service_fn(async |request: Request<()>| match request.uri().path() {
            "/missing" => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(()).unwrap()),
            _ => Err("as a test"),
        });
        let mut counted = Counted::new(service, "counted.example.com:6443".into());
        for path in ["/missing", "/missing", "/down"] {
            let request = Request::put(path).body(()).unwrap();
            let _ = counted.call(request).await;
        }
        let count =
            |code| REST_CLIENT_REQUESTS.with_label_values(&[code, "counted.example.com:6443", "PUT"]).get();
        assert_eq!((count("404"), count(NO_ANSWER)), (2, 1));
    }
}
