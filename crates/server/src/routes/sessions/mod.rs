//! `/exec`, `/attach`, `/portForward` and `/run`: sessions into containers.

mod bridge;
mod port_forward;
mod proxy;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use coracle_core::sessions::{ContainerTarget, PodTarget, SessionError};
use coracle_provider::{ErrorKind, SessionOptions};
use coracle_streaming::remotecommand::{self, Options};
use coracle_streaming::{Rejection, portforward};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use crate::text::text;
use bridge::{Kind, Process};

/// What paths name.
#[derive(Deserialize)]
pub(super) struct Names {
    pod_namespace: String,
    pod_id: String,
    uid: Option<String>,
    #[serde(default)]
    container_name: String,
}

impl Names {
    fn pod(self) -> PodTarget {
        PodTarget { namespace: self.pod_namespace, name: self.pod_id, uid: self.uid }
    }

    fn container(mut self) -> ContainerTarget {
        let container = std::mem::take(&mut self.container_name);
        ContainerTarget { pod: self.pod(), container }
    }
}

/// Runs a command in a container (`getExec`).
pub(super) async fn get_exec(
    State(app): State<Arc<App>>,
    Path(names): Path<Names>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let command = values(&query.unwrap_or_default(), "command");
    start(app, Kind::Exec { command }, names.container(), request).await
}

/// Connects to a container's own process (`getAttach`).
pub(super) async fn get_attach(
    State(app): State<Arc<App>>,
    Path(names): Path<Names>,
    request: Request,
) -> Response {
    start(app, Kind::Attach, names.container(), request).await
}

async fn start(app: Arc<App>, kind: Kind, target: ContainerTarget, mut request: Request) -> Response {
    let options = match Options::from_query(request.uri().query().unwrap_or_default()) {
        Ok(options) => options,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if app.host.pod_by_name(&target.pod.namespace, &target.pod.name).is_none() {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    }
    let Some(permit) = permit(&app) else { return too_many() };
    let (response, handshake) = match remotecommand::accept(&mut request, options, app.timeouts) {
        Ok(accepted) => accepted,
        Err(rejection) => return rejected(rejection),
    };
    let opened = match &kind {
        Kind::Exec { command } => app.host.exec(&target, command, session_options(options)).await,
        Kind::Attach => app.host.attach(&target, session_options(options)).await,
    };
    let process = match opened.map(Process::new) {
        Ok(Ok(process)) => process,
        Ok(Err(url)) => {
            let asked = proxy::passed_on(&request);
            return proxy::proxy(&app, &url, asked, handshake.into_upgrade(), permit).await;
        }
        Err(error) => return failed(&error),
    };
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = bridge::run(handshake, process, kind) => {}
            () = shutdown.cancelled() => {}
        }
    });
    response.map(Body::from)
}

/// Forwards ports of a pod (`getPortForward`).
pub(super) async fn get_port_forward(
    State(app): State<Arc<App>>,
    Path(names): Path<Names>,
    mut request: Request,
) -> Response {
    let mut target = names.pod();
    let Some(pod) = app.host.pod_by_name(&target.namespace, &target.name) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if target.uid.is_some() && target.uid != pod.metadata.uid {
        return text(StatusCode::NOT_FOUND, "pod not found");
    }
    // Connections to come are for this pod, and not for the next one of its name.
    target.uid.clone_from(&pod.metadata.uid);
    let Some(permit) = permit(&app) else { return too_many() };
    let (response, handshake) = match portforward::accept(&mut request, app.timeouts) {
        Ok(accepted) => accepted,
        Err(rejection) => return rejected(rejection),
    };
    match app.host.port_forward_url(&target, handshake.ports()).await {
        Ok(None) => {}
        Ok(Some(url)) => {
            let asked = proxy::passed_on(&request);
            return proxy::proxy(&app, &url, asked, handshake.into_upgrade(), permit).await;
        }
        Err(error) => return failed(&error),
    }
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = port_forward::run(handshake, app.host.clone(), target) => {}
            () = app.shutdown.cancelled() => {}
        }
    });
    response.map(Body::from)
}

/// Runs a command to its end, and answers with what it wrote (`getRun`).
pub(super) async fn get_run(
    State(app): State<Arc<App>>,
    Path(names): Path<Names>,
    RawQuery(query): RawQuery,
) -> Response {
    let target = names.container();
    if app.host.pod_by_name(&target.pod.namespace, &target.pod.name).is_none() {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    }
    let command = values(&query.unwrap_or_default(), "cmd").into_iter().next().unwrap_or_default();
    let command: Vec<_> = command.split(' ').map(str::to_owned).collect();
    let Some(_permit) = permit(&app) else { return too_many() };
    match app.host.run_in_container(&target, &command).await {
        Ok(output) => ([(CONTENT_TYPE, "application/json")], output).into_response(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn session_options(Options { stdin, stdout, stderr, tty }: Options) -> SessionOptions {
    SessionOptions { stdin, stdout, stderr, tty }
}

/// All values of a query's parameter.
fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

fn permit(app: &App) -> Option<OwnedSemaphorePermit> {
    app.sessions.clone().try_acquire_owned().ok()
}

fn too_many() -> Response {
    let message = "too many sessions are open on this node, try again later";
    ([(RETRY_AFTER, "1")], text(StatusCode::TOO_MANY_REQUESTS, message)).into_response()
}

fn rejected(rejection: Rejection) -> Response {
    rejection.into_response().map(Body::from)
}

/// The status is upstream's (`streaming.WriteError`).
fn failed(error: &SessionError) -> Response {
    let status = match error {
        SessionError::Provider(error) if error.kind == ErrorKind::NotFound => StatusCode::NOT_FOUND,
        SessionError::Provider(error) if error.kind == ErrorKind::ResourceExhausted => {
            let answer = text(StatusCode::TOO_MANY_REQUESTS, error.to_string());
            return ([(RETRY_AFTER, "60")], answer).into_response();
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, error.to_string())
}
