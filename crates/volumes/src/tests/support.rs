//! Fakes of the ports, pods to mount, and other users to be.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_core::clock;
use coracle_core::fieldpath::ResourceList;
use coracle_core::ports::{ApiError, ObjectKey, ObjectReader, TokenIssuer};
use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast;

use crate::privileges::Privileges;
use crate::{Options, VolumeManager};

/// `nobody`.
const ORDINARY_USER: u32 = 65534;

/// Whether this is root with all that volumes need; says loudly what does not run otherwise.
pub(super) fn is_root(what: &str) -> bool {
    let privileges = Privileges::of_this_process();
    let is_root = privileges.may_chown && privileges.may_mount;
    if !is_root {
        // Not by a macro: the test harness would keep that to itself.
        writeln!(std::io::stderr(), "SKIPPED, needs root: {what}").unwrap();
    }
    is_root
}

/// A directory that takes what is mounted in it along when it goes, whatever becomes of the test.
pub(super) struct MountDir(TempDir);

impl MountDir {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is mounted in it, the newest last.
    pub(super) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = read("/proc/self/mounts");
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        targets.filter(|target| target.starts_with(self.path())).collect()
    }
}

impl Drop for MountDir {
    fn drop(&mut self) {
        for target in self.mounts().iter().rev() {
            let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Runs a test as a user without any rights, in a thread of its own.
pub(super) fn as_ordinary_user(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (uid, gid) = (
                rustix::process::Uid::from_raw(ORDINARY_USER),
                rustix::process::Gid::from_raw(ORDINARY_USER),
            );
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        let privileges = Privileges::of_this_process();
        assert!(!privileges.may_chown && !privileges.may_mount);
        test();
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Sleeping for no time at all would still take a tick of tokio's timer.
async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Objects in memory.
#[derive(Default)]
pub(super) struct FakeObjects {
    config_maps: Mutex<HashMap<String, Arc<ConfigMap>>>,
    secrets: Mutex<HashMap<String, Arc<Secret>>>,
    /// How long each read takes.
    delay: Duration,
    versions: AtomicUsize,
}

impl FakeObjects {
    /// Each read takes this long.
    pub(super) fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            resource_version: Some(self.versions.fetch_add(1, Ordering::Relaxed).to_string()),
            ..Default::default()
        }
    }

    pub(super) fn set_config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let object = ConfigMap { metadata: self.metadata(name), data: Some(data), ..Default::default() };
        self.config_maps.lock().insert(name.into(), Arc::new(object));
    }

    /// As an object from a file: without a resource version.
    pub(super) fn set_unversioned_config_map(&self, name: &str, data: &[(&str, &str)]) {
        self.set_config_map(name, data);
        let mut maps = self.config_maps.lock();
        let mut object = (*maps[name]).clone();
        object.metadata.resource_version = None;
        object.binary_data =
            Some(BTreeMap::from([("binary".to_owned(), k8s_openapi::ByteString(vec![0, 159, 146, 150]))]));
        maps.insert(name.into(), Arc::new(object));
    }

    pub(super) fn set_secret(&self, name: &str, data: &[(&str, &str)]) {
        let data =
            data.iter().map(|(k, v)| ((*k).to_owned(), k8s_openapi::ByteString(v.as_bytes().to_vec())));
        let object =
            Secret { metadata: self.metadata(name), data: Some(data.collect()), ..Default::default() };
        self.secrets.lock().insert(name.into(), Arc::new(object));
    }

    pub(super) fn remove_config_map(&self, name: &str) {
        self.config_maps.lock().remove(name);
    }
}

#[async_trait]
impl ObjectReader for FakeObjects {
    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ApiError> {
        pause(self.delay).await;
        let object = self.config_maps.lock().get(name).cloned();
        object.ok_or_else(|| ApiError::NotFound(format!("configmap {name:?} not found")))
    }

    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ApiError> {
        pause(self.delay).await;
        let object = self.secrets.lock().get(name).cloned();
        object.ok_or_else(|| ApiError::NotFound(format!("secret {name:?} not found")))
    }

    async fn runtime_class(&self, name: &str) -> Result<Arc<RuntimeClass>, ApiError> {
        Err(ApiError::NotFound(name.to_owned()))
    }

    async fn services(
        &self,
        _namespace: &str,
    ) -> Result<Vec<Arc<k8s_openapi::api::core::v1::Service>>, ApiError> {
        Ok(Vec::new())
    }

    fn node(&self) -> Option<Arc<Node>> {
        None
    }

    fn register_pod(&self, _pod: &Pod) {}

    fn unregister_pod(&self, _pod: &Pod) {}

    fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        broadcast::channel(1).1
    }
}

/// Issues tokens that look like the apiserver's.
#[derive(Default)]
pub(super) struct FakeIssuer {
    pub(super) requests: Mutex<Vec<TokenRequest>>,
    /// Answers all requests, if there is one.
    pub(super) error: Mutex<Option<ApiError>>,
    /// Whether requests hang.
    pub(super) hangs: std::sync::atomic::AtomicBool,
    /// `--service-account-extend-token-expiration`: the token itself lives for a year.
    pub(super) extends: bool,
    pub(super) delay: Duration,
}

impl FakeIssuer {
    pub(super) fn count(&self) -> usize {
        self.requests.lock().len()
    }

    pub(super) fn fail(&self, error: impl Into<Option<ApiError>>) {
        *self.error.lock() = error.into();
    }
}

#[async_trait]
impl TokenIssuer for FakeIssuer {
    async fn create_token(
        &self,
        namespace: &str,
        service_account: &str,
        request: TokenRequest,
    ) -> Result<TokenRequest, ApiError> {
        let serial = {
            let mut requests = self.requests.lock();
            requests.push(request.clone());
            requests.len()
        };
        pause(self.delay).await;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.error.lock().clone() {
            return Err(error);
        }
        let spec = request.spec.clone().unwrap();
        let seconds = spec.expiration_seconds.unwrap();
        let bound = spec.bound_object_ref.unwrap();
        let now = clock::now();
        let year = 365 * 24 * 3600;
        let token = jwt(&json!({
            "aud": spec.audiences.unwrap_or_else(|| vec!["https://kubernetes.default.svc".into()]),
            "iat": now.as_second(),
            "exp": now.as_second() + if self.extends { year } else { seconds },
            "jti": serial,
            "kubernetes.io": {
                "namespace": namespace,
                "pod": { "name": bound.name, "uid": bound.uid },
                "serviceaccount": { "name": service_account, "uid": "sa-uid" },
            },
        }));
        let expires_at = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let status = TokenRequestStatus { expiration_timestamp: Some(Time(expires_at)), token: Some(token) };
        Ok(TokenRequest { status: Some(status), ..request })
    }
}

/// A token with these claims and no signature worth the name.
pub(super) fn jwt(claims: &Value) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode("{\"alg\":\"none\"}"), encode(&claims.to_string()), encode("signature"))
}

/// A pod with these volumes, all of them mounted by its one container, merged with more of a pod.
pub(super) fn pod(uid: &str, volumes: Value, more: Value) -> Arc<Pod> {
    let mounts: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|v| json!({ "name": v["name"], "mountPath": format!("/mnt/{}", v["name"].as_str().unwrap()) }))
        .collect();
    let mut pod = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": uid, "labels": { "app": "web" } },
        "spec": {
            "serviceAccountName": "builder",
            "volumes": volumes,
            "containers": [{ "name": "main", "image": "example.com/main", "volumeMounts": mounts }],
        },
    });
    merge(&mut pod, more);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The volume that the ServiceAccount admission plugin gives to every pod.
pub(super) fn kube_api_access() -> Value {
    json!({
        "name": "kube-api-access",
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [
                    { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
                ] } },
            ],
        },
    })
}

/// A manager in a directory of its own.
pub(super) struct Bed {
    pub(super) objects: Arc<FakeObjects>,
    pub(super) issuer: Arc<FakeIssuer>,
    pub(super) manager: VolumeManager,
    pub(super) root: TempDir,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(FakeObjects::default(), FakeIssuer::default())
    }

    pub(super) fn with(objects: FakeObjects, issuer: FakeIssuer) -> Self {
        objects.set_config_map("kube-root-ca.crt", &[("ca.crt", "CERTIFICATE")]);
        let root = tempfile::tempdir().unwrap();
        let (objects, issuer) = (Arc::new(objects), Arc::new(issuer));
        let manager = manager(root.path(), &objects, &issuer);
        Self { objects, issuer, manager, root }
    }

    /// The agent dies and comes back.
    pub(super) fn restart(&mut self) {
        self.manager = manager(self.root.path(), &self.objects, &self.issuer);
    }

    pub(super) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.path().join("pods").join(uid)
    }

    pub(super) fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }
}

fn manager(root: &Path, objects: &Arc<FakeObjects>, issuer: &Arc<FakeIssuer>) -> VolumeManager {
    let options =
        Options { root_dir: root.to_owned(), allow_host_path: true, node_allocatable: Box::new(allocatable) };
    VolumeManager::new(options, objects.clone(), Some(issuer.clone())).unwrap()
}

fn allocatable() -> ResourceList {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity("4".to_owned())),
        ("memory".to_owned(), Quantity("8Gi".to_owned())),
    ])
}

pub(super) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Permission bits, of what a link leads to.
pub(super) fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// User and group.
pub(super) fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// The names in a directory, sorted.
pub(super) fn list(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
