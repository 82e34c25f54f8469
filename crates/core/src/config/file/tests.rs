//! Upstream's tables of `file_linux_test.go`.

use std::fs;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// Longer than any test: what is seen was told by the kernel.
const NEVER: Duration = Duration::from_secs(3600);

struct Bed {
    updates: mpsc::Receiver<SourceUpdate>,
    source: JoinHandle<()>,
}

impl Bed {
    fn start(path: &Path, period: Duration) -> Self {
        let (sender, updates) = mpsc::channel(16);
        let source = FileSource::new(path.to_owned(), "node-1".into(), period);
        Self { updates, source: tokio::spawn(async move { source.run(sender).await }) }
    }

    /// `name image` of the pods that it sends next.
    async fn next(&mut self) -> Vec<String> {
        let update = timeout(Duration::from_secs(10), self.updates.recv()).await.expect("an update");
        let Some(SourceUpdate::Set(pods)) = update else { panic!("not a list: {update:?}") };
        let image = |pod: &Arc<Pod>| pod.containers()[0].image.clone().unwrap_or_default();
        pods.iter().map(|pod| format!("{} {}", pod.name(), image(pod))).collect()
    }

    /// Waits until it has sent these pods.
    async fn until(&mut self, pods: &[&str]) {
        let mut last = Vec::new();
        let seen = timeout(Duration::from_secs(10), async {
            while last != pods {
                last = self.next().await;
            }
        });
        let seen = seen.await;
        assert!(seen.is_ok(), "never {pods:?}, last {last:?}");
    }
}

fn manifest(name: &str, image: &str) -> String {
    let containers = format!("[{{name: c, image: '{image}'}}]");
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: {containers}}}\n")
}

fn write(folder: &TempDir, file: &str, name: &str, image: &str) -> PathBuf {
    let path = folder.path().join(file);
    fs::write(&path, manifest(name, image)).unwrap();
    path
}

#[tokio::test]
async fn a_path_that_is_not_there_has_no_pods_until_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("manifests");
    let mut bed = Bed::start(&path, NEVER);
    assert!(bed.next().await.is_empty(), "the source has spoken");
    fs::create_dir(&path).unwrap();
    // Seen, empty as it is, before there is something in it.
    assert!(bed.next().await.is_empty());
    tokio::time::sleep(Duration::from_millis(50)).await;
    fs::write(path.join("a.yaml"), manifest("a", "i")).unwrap();
    bed.until(&["a-node-1 i"]).await;
    fs::remove_dir_all(&path).unwrap();
    bed.until(&[]).await;
}

#[tokio::test]
async fn a_folder_is_followed() {
    let folder = TempDir::new().unwrap();
    write(&folder, "b.yaml", "b", "1");
    write(&folder, ".hidden.yaml", "hidden", "1");
    fs::create_dir(folder.path().join("deeper")).unwrap();
    fs::write(folder.path().join("deeper/d.yaml"), manifest("d", "1")).unwrap();
    let mut bed = Bed::start(folder.path(), NEVER);
    assert_eq!(bed.next().await, ["b-node-1 1"]);
    write(&folder, "a.json", "a", "1");
    bed.until(&["a-node-1 1", "b-node-1 1"]).await;
    write(&folder, "b.yaml", "b", "2");
    bed.until(&["a-node-1 1", "b-node-1 2"]).await;
    // As editors and configuration management do it.
    write(&folder, ".b.yaml.new", "b", "3");
    fs::rename(folder.path().join(".b.yaml.new"), folder.path().join("b.yaml")).unwrap();
    bed.until(&["a-node-1 1", "b-node-1 3"]).await;
    fs::rename(folder.path().join("a.json"), folder.path().join(".a.json")).unwrap();
    bed.until(&["b-node-1 3"]).await;
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    bed.until(&[]).await;
}

#[tokio::test]
async fn a_single_file_is_followed_through_all_that_happens_to_it() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.yaml", "a", "1");
    write(&folder, "b.yaml", "b", "1");
    let mut bed = Bed::start(&path, NEVER);
    assert_eq!(bed.next().await, ["a-node-1 1"]);
    write(&folder, "a.yaml", "a", "2");
    bed.until(&["a-node-1 2"]).await;
    fs::remove_file(&path).unwrap();
    bed.until(&[]).await;
    write(&folder, "a.yaml", "a", "3");
    bed.until(&["a-node-1 3"]).await;
    fs::rename(folder.path().join("b.yaml"), &path).unwrap();
    bed.until(&["b-node-1 1"]).await;
}

#[tokio::test]
async fn links_are_files() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = write(&elsewhere, "target.yaml", "a", "1");
    let mut bed = Bed::start(folder.path(), Duration::from_secs(1));
    assert!(bed.next().await.is_empty());
    std::os::unix::fs::symlink(&target, folder.path().join("link.yaml")).unwrap();
    bed.until(&["a-node-1 1"]).await;
    // The kernel does not tell of the target; the audit finds it.
    write(&elsewhere, "target.yaml", "a", "2");
    bed.until(&["a-node-1 2"]).await;
}

#[tokio::test]
async fn a_manifest_that_is_being_written_stays_what_it_was() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", "a", "1");
    write(&folder, "b.yaml", "b", "1");
    let mut bed = Bed::start(folder.path(), NEVER);
    assert_eq!(bed.next().await.len(), 2);
    fs::write(folder.path().join("a.yaml"), "apiVersion: v1\nkind: Po").unwrap();
    bed.until(&["a-node-1 1", "b-node-1 1"]).await;
    write(&folder, "a.yaml", "a", "2");
    bed.until(&["a-node-1 2", "b-node-1 1"]).await;
}

#[tokio::test]
async fn a_malformed_manifest_harms_no_other() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), "what: is this").unwrap();
    write(&folder, "b.yaml", "b", "1");
    let mut manifests = Manifests::default();
    let names = |pods: Vec<Arc<Pod>>| pods.iter().map(|p| p.name().to_owned()).collect::<Vec<_>>();
    let pods = manifests.read(folder.path(), Look::Audit, "n").await.unwrap();
    assert_eq!(names(pods), ["b-n"]);
    let told = &manifests.told[&folder.path().join("a.yaml")];
    assert!(told.contains("is no usable pod"), "{told}");

    // One that was good and is not any more goes with the audit.
    fs::write(folder.path().join("b.yaml"), "what: is this").unwrap();
    assert_eq!(names(manifests.read(folder.path(), Look::Notice, "n").await.unwrap()), ["b-n"]);
    assert!(manifests.read(folder.path(), Look::Audit, "n").await.unwrap().is_empty());
}

#[tokio::test]
async fn of_two_files_with_the_same_pod_the_last_one_counts() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.yaml", "same", "1");
    write(&folder, "b.yaml", "same", "2");
    let mut manifests = Manifests::default();
    let pods = manifests.read(folder.path(), Look::Audit, "n").await.unwrap();
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].containers()[0].image.as_deref(), Some("2"));
    let told = &manifests.told[&folder.path().join("a.yaml")];
    assert!(told.contains("b.yaml has a pod of the same name"), "{told}");
}

#[tokio::test]
async fn pipes_and_monsters_are_not_read() {
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let large = folder.path().join("large");
    fs::File::create(&large).unwrap().set_len(MAX_MANIFEST_BYTES + 1).unwrap();
    for (path, message) in [(&pipe, "is not a file"), (&large, "is larger than 10 MiB")] {
        let error = read_file(path, "n").await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn the_source_ends_with_its_listener() {
    let folder = TempDir::new().unwrap();
    let mut bed = Bed::start(folder.path(), NEVER);
    bed.next().await;
    drop(bed.updates);
    timeout(Duration::from_secs(10), bed.source).await.unwrap().unwrap();
}
