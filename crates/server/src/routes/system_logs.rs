//! `/logs/`: the node's own logs (upstream: `ServeLogs`, which is Go's file server over `/var/log`).
//!
//! Links are followed as long as they stay in the folder. Upstream follows them anywhere, which lets who can write a link
//! into the folder, by hostPath, read all files of the node.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::App;
use super::not_served::{disabled, not_found};
use crate::text::text;

/// What a link in a list may not hold as it is.
const IN_LINKS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?');

/// What is to be shown.
enum Found {
    File(File, u64),
    /// Names; those of folders end with a slash.
    Folder(Vec<String>),
}

/// `/logs` itself.
pub(super) async fn to_folder(State(app): State<Arc<App>>) -> Response {
    match app.about.system_logs {
        Some(_) => (StatusCode::MOVED_PERMANENTLY, [(LOCATION, "/logs/")]).into_response(),
        None => disabled("logs endpoint is disabled."),
    }
}

/// A file, or the list of a folder.
pub(super) async fn get_logs(State(app): State<Arc<App>>, params: RawPathParams) -> Response {
    let Some(root) = app.about.system_logs.clone() else {
        return disabled("logs endpoint is disabled.");
    };
    let asked = params.iter().next().map_or("", |(_, value)| value);
    let Some(path) = relative(asked) else { return not_found().await };
    let is_folder = asked.is_empty() || asked.ends_with('/');
    let found = tokio::task::spawn_blocking(move || find(&root, &path)).await;
    match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(Found::File(file, length)) => content(file, length),
        // Links in the list are relative to it.
        Ok(Found::Folder(_)) if !is_folder => {
            let name = asked.rsplit('/').next().unwrap_or_default();
            let target = format!("{}/", utf8_percent_encode(name, IN_LINKS));
            (StatusCode::MOVED_PERMANENTLY, [(LOCATION, target)]).into_response()
        }
        Ok(Found::Folder(names)) => list(&names),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            text(StatusCode::FORBIDDEN, "403 Forbidden\n")
        }
        Err(_) => not_found().await,
    }
}

/// The path below the folder; `..` leads nowhere.
fn relative(decoded: &str) -> Option<PathBuf> {
    if decoded.contains('\0') {
        return None;
    }
    let mut path = PathBuf::new();
    for component in Path::new(decoded).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// Opens what is there. Blocks the thread.
fn find(root: &Path, path: &Path) -> io::Result<Found> {
    let root = root.canonicalize()?;
    let target = root.join(path).canonicalize()?;
    let below = target.strip_prefix(&root).map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied))?;
    // Between looking and opening nobody can put a link in the way.
    let file = File::from(open_beneath(&root, below)?);
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(Found::File(file, metadata.len()));
    }
    if !metadata.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&target)? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(Found::Folder(names))
}

fn open_beneath(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let folder = File::open(root)?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    // A pipe must not hold up anybody.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(&folder, below, flags, Mode::empty(), resolve)?)
}

/// A file that grows is sent as long as it was.
fn content(file: File, length: u64) -> Response {
    let body = ReaderStream::new(tokio::fs::File::from_std(file).take(length));
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn list(names: &[String]) -> Response {
    let mut body =
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        let link = utf8_percent_encode(name, IN_LINKS);
        body.push_str(&format!("<a href=\"{link}\">{}</a>\n", escaped(name)));
    }
    body.push_str("</pre>\n");
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}
