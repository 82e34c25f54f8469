//! Listening on a Unix socket (upstream: `CreateListener` of `k8s.io/cri-client`).

use std::fs::{DirBuilder, remove_file, rename};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: {error}", path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// Listens on `path`, in a folder for root alone. What another process left there is replaced at once: there is always a
/// socket to be found.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let made = path.with_extension("new");
    let listen = || {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        match remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&made)?;
        rename(&made, path)?;
        Ok(listener)
    };
    listen().map_err(|error| SocketError { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_another_process_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("folder/kubelet.sock");
        drop(listen(&path).unwrap());
        assert!(UnixStream::connect(&path).await.is_err() && path.exists());
        let _listener = listen(&path).unwrap();
        UnixStream::connect(&path).await.unwrap();
        let mode = path.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750);
        let names: Vec<_> = path.parent().unwrap().read_dir().unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = listen(&root.path().join("file/kubelet.sock")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot listen on ")
                && error.to_string().contains("file/kubelet.sock")
        );
    }
}
