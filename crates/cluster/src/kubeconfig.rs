//! The kubeconfig file.

use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::error::chain;

/// Why there is no client for the apiserver.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be used as it is.
    #[error("kubeconfig {}: {message}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, or with a file that it names.
        message: String,
    },
    /// The file asks for something that does not exist here.
    #[error("kubeconfig {}: {what} is not supported; {instead}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
}

/// Reads the current context of a kubeconfig file, as upstream's `clientcmd` does: paths in it are relative to it,
/// data wins over files. Certificates and keys are read now; a token file is read again from time to time.
pub(crate) async fn load(path: &Path) -> Result<Config, ConnectError> {
    let kubeconfig = Kubeconfig::read_from(path).map_err(|e| unreadable(path, &e))?;
    refuse_unsupported(path, &kubeconfig)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| unreadable(path, &e))
}

/// An error of the file, or of what it names.
pub(crate) fn invalid(path: &Path, message: String) -> ConnectError {
    ConnectError::Kubeconfig { path: path.to_owned(), message }
}

fn unreadable(path: &Path, error: &KubeconfigError) -> ConnectError {
    let message = match error {
        KubeconfigError::ReadConfig(e, _) => format!("cannot be read: {e}"),
        // The parser's own text quotes lines of the file, and those may hold keys.
        KubeconfigError::Parse(e) => match e.location() {
            Some(at) => format!("is not a kubeconfig (line {}, column {})", at.line(), at.column()),
            None => "is not a kubeconfig".to_owned(),
        },
        KubeconfigError::CurrentContextNotSet => "no current-context is set".to_owned(),
        KubeconfigError::LoadContext(name) => format!("there is no context {name:?}"),
        KubeconfigError::LoadClusterOfContext(name) => format!("there is no cluster {name:?}"),
        KubeconfigError::MissingClusterUrl => "the cluster has no server".to_owned(),
        other => chain(other),
    };
    invalid(path, message)
}

fn refuse_unsupported(path: &Path, kubeconfig: &Kubeconfig) -> Result<(), ConnectError> {
    let unsupported = |what, instead| Err(ConnectError::Unsupported { path: path.to_owned(), what, instead });
    let user = current_user(kubeconfig);
    if user.is_some_and(|user| user.exec.is_some()) {
        return unsupported(
            "an exec credential plugin",
            "use client-certificate and client-key, token or tokenFile",
        );
    }
    if user.is_some_and(|user| user.auth_provider.is_some()) {
        return unsupported("auth-provider", "use client-certificate and client-key, token or tokenFile");
    }
    let mut clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    if clusters.any(|cluster| cluster.proxy_url.as_deref().is_some_and(|url| !url.is_empty())) {
        return unsupported("proxy-url", "give the node a direct route to the apiserver");
    }
    Ok(())
}

fn current_user(kubeconfig: &Kubeconfig) -> Option<&AuthInfo> {
    let context = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|c| &c.name == context)?.context.as_ref()?;
    let user = context.user.as_ref()?;
    kubeconfig.auth_infos.iter().find(|u| &u.name == user)?.auth_info.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn load_text(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(dir.path().join("token"), "t0ken").unwrap();
        std::fs::write(&path, text).unwrap();
        let prefix = format!("kubeconfig {}: ", path.display());
        load(&path).await.map_err(|e| {
            let text = e.to_string();
            assert!(!text.contains('\n'), "{text}");
            text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
        })
    }

    fn kubeconfig(user: &str, cluster: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, \
             user: u}}}}], clusters: [{{name: k, cluster: {{server: 'https://localhost:6443'{cluster}}}}}], \
             users: [{{name: u, user: {user}}}]}}"
        )
    }

    #[tokio::test]
    async fn paths_are_relative_to_the_file() {
        let config = load_text(&kubeconfig("{tokenFile: token}", "")).await.unwrap();
        assert!(config.auth_info.token_file.unwrap().ends_with("/token"));
        assert_eq!(config.cluster_url, "https://localhost:6443/");
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_in_one_line() {
        let table = [
            ("clusters: [", "is not a kubeconfig (line 1, column "),
            ("{}", "no current-context is set"),
            ("{current-context: x}", "there is no context \"x\""),
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}]}",
                "there is no cluster \"k\"",
            ),
            (
                "{current-context: c, contexts: [{name: c, context: {cluster: k}}], clusters: [{name: k, cluster: {}}]}",
                "the cluster has no server",
            ),
            (
                &kubeconfig("{}", ", certificate-authority: nowhere.crt"),
                "failed to load certificate authority",
            ),
            (
                &kubeconfig("{exec: {command: aws}}", ""),
                "an exec credential plugin is not supported; use client-certificate and client-key, token or tokenFile",
            ),
            (
                &kubeconfig("{auth-provider: {name: gcp}}", ""),
                "auth-provider is not supported; use client-certificate and client-key, token or tokenFile",
            ),
            (
                &kubeconfig("{}", ", proxy-url: 'http://localhost:3128'"),
                "proxy-url is not supported; give the node a direct route to the apiserver",
            ),
        ];
        for (text, expected) in table {
            let error = load_text(text).await.unwrap_err();
            assert!(error.starts_with(expected), "{text}\n{error}");
        }
    }

    #[tokio::test]
    async fn a_broken_file_is_not_quoted() {
        let error = load_text("users: [{name: u, user: {token: s3cret, }}: ]").await.unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/kubeconfig")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "kubeconfig /nowhere/kubeconfig: cannot be read: No such file or directory (os error 2)"
        );
    }
}
