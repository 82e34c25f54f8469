//! Users and groups of WebAssembly containers, which have files.

use serde_json::json;

use crate::world::{World, one};

#[tokio::test(start_paused = true)]
async fn root_is_refused_where_it_must_not_be() {
    let world = World::start().await;
    let mut spec = one("Always", "app");
    spec["securityContext"] = json!({ "runAsNonRoot": true });
    world.create("root", spec.clone());
    world.until("it waits", |w| w.waiting("root") == "CreateContainerConfigError").await;
    spec["securityContext"]["runAsUser"] = json!(1000);
    world.create("other", spec);
    world.until("Running", |w| w.phase("other") == "Running").await;
}
