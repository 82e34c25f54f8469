//! RuntimeClasses: few, and all of them followed (upstream: `pkg/kubelet/runtimeclass`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::ports::ApiError;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::ApiClient;
use crate::watch::{Change, Watch};

/// How long a pod waits for the first list.
const FIRST_LIST: Duration = Duration::from_secs(10);

type Known = Option<HashMap<String, Arc<RuntimeClass>>>;

pub(super) struct RuntimeClasses {
    client: Arc<ApiClient>,
    known: watch::Receiver<Known>,
    _follower: AbortOnDropHandle<()>,
}

impl RuntimeClasses {
    pub(super) fn start(client: Arc<ApiClient>) -> Self {
        let (sender, known) = watch::channel(None);
        let task = tokio::spawn(follow(Arc::clone(&client), sender));
        Self { client, known, _follower: AbortOnDropHandle::new(task) }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        match self.listed(name).await? {
            Some(class) => Ok(class),
            // One that was made just before its pod may reach the watch after it.
            None => self.client.get(None, name).await.map(Arc::new),
        }
    }

    async fn listed(&self, name: &str) -> Result<Option<Arc<RuntimeClass>>, ApiError> {
        let mut known = self.known.clone();
        let listed = tokio::time::timeout(FIRST_LIST, known.wait_for(Option::is_some)).await;
        let Ok(Ok(known)) = listed else {
            return Err(ApiError::Unavailable("the RuntimeClasses have not been listed yet".to_owned()));
        };
        Ok(known.as_ref().and_then(|classes| classes.get(name)).cloned())
    }
}

async fn follow(client: Arc<ApiClient>, known: watch::Sender<Known>) {
    let mut classes = Watch::<RuntimeClass>::new(&client, None, String::new());
    loop {
        let change = classes.next().await;
        known.send_modify(|known| match change {
            Change::Set(classes) => *known = Some(classes.into_iter().map(named).collect()),
            Change::Apply(class) => known.get_or_insert_default().extend([named(class)]),
            Change::Delete(class) => {
                known.get_or_insert_default().remove(&class.name_any());
            }
        });
    }
}

fn named(mut class: RuntimeClass) -> (String, Arc<RuntimeClass>) {
    class.metadata.managed_fields = None;
    (class.name_any(), Arc::new(class))
}
