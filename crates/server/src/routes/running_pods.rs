//! `/runningpods/`: what the runtimes have running, wanted or not.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::App;
use super::pods::pod_list;

/// A `v1.PodList` (`getRunningPods`).
pub(super) async fn get_running_pods(State(app): State<Arc<App>>) -> Response {
    pod_list(app.host.running_pods().into_iter().map(Arc::new).collect())
}
