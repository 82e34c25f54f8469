//! `/debug/flags/v`: how much is logged, changed at run time (upstream: apiserver's `routes/flags.go`).

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode};

use super::App;
use super::not_served::disabled;
use crate::text::text;

/// A number is not longer than this.
const MAX_BODY: usize = 64;

/// `PUT` with a number as body (`StringFlagPutHandler`, `GlogSetter`).
pub(super) async fn put_verbosity(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let Some(set_verbosity) = &app.about.set_verbosity else {
        return disabled("flags endpoint is disabled.");
    };
    if request.method() != Method::PUT {
        return text(StatusCode::NOT_ACCEPTABLE, "unsupported http method");
    }
    let refused = |why: String| text(StatusCode::BAD_REQUEST, why);
    let body = match to_bytes(request.into_body(), MAX_BODY).await {
        Ok(body) => body,
        Err(error) => return refused(format!("error reading request body: {error}")),
    };
    let Ok(value) = std::str::from_utf8(&body) else {
        return refused("error reading request body: it is no text".to_owned());
    };
    match set_verbosity(value) {
        Ok(()) => text(StatusCode::OK, format!("successfully set klog.logging.verbosity to {value}")),
        Err(error) => refused(format!("failed set klog.logging.verbosity {value}: {error}")),
    }
}
