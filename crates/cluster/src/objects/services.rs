//! Services: all of them followed, because every container is told of those of its namespace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::ApiError;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::ApiClient;
use crate::watch::{Change, Watch};

/// How long a container waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

/// By namespace and name; nothing before the first list.
type Known = Option<HashMap<String, HashMap<String, Arc<Service>>>>;

pub(super) struct Services {
    known: watch::Receiver<Known>,
    _follower: AbortOnDropHandle<()>,
}

impl Services {
    pub(super) fn start(client: Arc<ApiClient>) -> Self {
        let (sender, known) = watch::channel(None);
        let task = tokio::spawn(follow(client, sender));
        Self { known, _follower: AbortOnDropHandle::new(task) }
    }

    /// Those of a namespace.
    pub(super) async fn of(&self, namespace: &str) -> Result<Vec<Arc<Service>>, ApiError> {
        let mut known = self.known.clone();
        let listed = tokio::time::timeout(FIRST_LIST, known.wait_for(Option::is_some)).await;
        let Ok(Ok(known)) = listed else {
            let message = "services have not yet been read at least once, cannot construct envvars";
            return Err(ApiError::Unavailable(message.to_owned()));
        };
        let of_namespace = known.as_ref().and_then(|services| services.get(namespace));
        Ok(of_namespace.map(|services| services.values().cloned().collect()).unwrap_or_default())
    }
}

async fn follow(client: Arc<ApiClient>, known: watch::Sender<Known>) {
    let mut services = Watch::<Service>::new(&client, None, String::new());
    loop {
        let change = services.next().await;
        known.send_modify(|known| match change {
            Change::Set(services) => {
                let known = known.insert(HashMap::new());
                services.into_iter().for_each(|service| put(known, service));
            }
            Change::Apply(service) => put(known.get_or_insert_default(), service),
            Change::Delete(service) => {
                let namespace = service.namespace().unwrap_or_default();
                if let Some(services) = known.get_or_insert_default().get_mut(&namespace) {
                    services.remove(&service.name_any());
                }
            }
        });
    }
}

fn put(known: &mut HashMap<String, HashMap<String, Arc<Service>>>, mut service: Service) {
    service.metadata.managed_fields = None;
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    known.entry(namespace).or_default().insert(name, Arc::new(service));
}
