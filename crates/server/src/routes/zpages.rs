//! `/flagz` and `/statusz` (upstream: `k8s.io/apiserver/pkg/server/flagz`, `statusz`): text for people, JSON for who asks
//! for it by kind. Upstream's text separates names and values differently each time, so that nobody parses it; here it
//! is always a colon.

mod accept;

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, WARNING};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{App, PATHS};
use crate::text::text;
use accept::{Wanted, negotiate};

const COMPONENT: &str = "kubelet";
const WARNING_TEXT: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting \
                            compatibility guarantees and is for debugging purposes only.";

/// The flags of this process.
pub(super) async fn flagz(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let flags = &app.about.flags;
    answer(
        "Flagz",
        "flagz",
        &headers,
        || json!({"flags": flags}),
        || flags.iter().fold(String::new(), |text, (name, value)| text + name + ": " + value + "\n"),
    )
}

/// What runs here, and since when.
pub(super) async fn statusz(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let status = Status::of(&app);
    answer("Statusz", "statusz", &headers, || status.json(), || status.text())
}

fn answer(
    kind: &str,
    page: &str,
    headers: &HeaderMap,
    json: impl FnOnce() -> Value,
    plain: impl FnOnce() -> String,
) -> Response {
    match negotiate(headers, kind) {
        Wanted::Text => {
            let body = format!("\n{COMPONENT} {page}\n{WARNING_TEXT}\n{}", plain());
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
        }
        Wanted::Json { version } => {
            let mut object = json!({
                "kind": kind,
                "apiVersion": format!("config.k8s.io/{version}"),
                "metadata": {"name": COMPONENT},
            });
            if let (Some(object), Value::Object(more)) = (object.as_object_mut(), json()) {
                object.extend(more);
            }
            let mut response = ([(CONTENT_TYPE, "application/json")], format!("{object}\n")).into_response();
            if version == accept::DEPRECATED {
                let warning = format!(
                    "299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\""
                );
                response.headers_mut().extend(warning.parse().ok().map(|warning| (WARNING, warning)));
            }
            response
        }
        Wanted::Other => {
            let message = "only the following media types are accepted: application/json, text/plain";
            text(StatusCode::NOT_ACCEPTABLE, message)
        }
    }
}

struct Status {
    started_at: Timestamp,
    uptime_seconds: i64,
    version: String,
    emulated: String,
    paths: Vec<String>,
}

impl Status {
    fn of(app: &App) -> Self {
        let version = app.about.version.trim_start_matches('v');
        let number = version.split('+').next().unwrap_or(version);
        let emulated = number.rsplit_once('.').map_or(number, |(minor, _)| minor);
        Self {
            started_at: app.about.started_at,
            uptime_seconds: Timestamp::now().duration_since(app.about.started_at).as_secs().max(0),
            version: number.to_owned(),
            emulated: emulated.to_owned(),
            paths: PATHS.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "startTime": self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "uptimeSeconds": self.uptime_seconds,
            "goVersion": "",
            "binaryVersion": self.version,
            "emulationVersion": self.emulated,
            "paths": self.paths,
        })
    }

    fn text(&self) -> String {
        let up = self.uptime_seconds;
        let mut text = String::from("\n");
        // Writing into a String cannot fail.
        let _ = writeln!(text, "Started: {}", self.started_at.strftime("%a %b %e %H:%M:%S UTC %Y"));
        let _ = writeln!(text, "Up: {} hr {:02} min {:02} sec", up / 3600, (up / 60) % 60, up % 60);
        let _ = writeln!(text, "Go version: ");
        let _ = writeln!(text, "Binary version: {}", self.version);
        let _ = writeln!(text, "Emulation version: {}", self.emulated);
        let _ = writeln!(text, "Paths: {}", self.paths.join(" "));
        text
    }
}
