//! The merged tree of an image's layers, in memory.

use std::collections::BTreeMap;

use super::archive::{Entry, Kind};
use super::{Location, RootfsError};

/// The name of an entry that hides everything below its directory, in lower layers.
const OPAQUE: &str = ".wh..wh..opq";
/// What the name of an entry begins with that hides another one, in lower layers.
const WHITEOUT: &str = ".wh.";

/// Linux has no longer paths.
const MAX_PATH_BYTES: usize = 4096;
/// As Linux: more symbolic links than this on one path are a circle.
const MAX_LINKS: usize = 40;
/// Names of more files than this (about 150,000) would be for filling the node's memory.
const MAX_TREE_BYTES: usize = 32 << 20;
const NODE_BYTES: usize = 128;
/// How many bytes of paths are compared at most: links upon links would keep the node busy for hours.
const MAX_EFFORT: usize = 256 << 20;

/// All files of an image by their real path, which has no slash in front and no links in it.
#[derive(Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    bytes: usize,
    effort: usize,
}

struct Node {
    /// The layer that it is from.
    layer: usize,
    kind: NodeKind,
}

#[derive(Clone)]
enum NodeKind {
    Directory,
    File(Location),
    Symlink(String),
    Other,
}

impl Tree {
    /// Puts an entry over what is there. Layers come from the lowest to the highest.
    pub(super) fn apply(&mut self, layer: usize, entry: Entry) -> Result<(), RootfsError> {
        let (parent, name) = split(&entry.path)?;
        if name.is_empty() {
            return Ok(());
        }
        let parent = self.resolve(&parent)?;
        if name == OPAQUE {
            return self.remove_below(&parent, Some(layer));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // What begins with two of them is bookkeeping of file systems.
            return if hidden.starts_with(WHITEOUT) {
                Ok(())
            } else {
                self.remove(&join(&parent, hidden), Some(layer))
            };
        }
        let kind = self.node_kind(layer, entry.kind)?;
        self.insert(join(&parent, &name), Node { layer, kind })
    }

    /// The file that `path` leads to, if there is one.
    pub(super) fn file(&mut self, path: &str) -> Result<Option<Location>, RootfsError> {
        let real = self.resolve(path)?;
        match self.nodes.get(&real) {
            Some(Node { kind: NodeKind::File(location), .. }) => Ok(Some(*location)),
            _ => Ok(None),
        }
    }

    fn node_kind(&mut self, layer: usize, kind: Kind) -> Result<NodeKind, RootfsError> {
        Ok(match kind {
            Kind::Directory => NodeKind::Directory,
            Kind::File { position, size } => NodeKind::File(Location { layer, position, size }),
            Kind::Symlink(target) if target.len() > MAX_PATH_BYTES => return Err(ENDLESS),
            Kind::Symlink(target) => NodeKind::Symlink(target),
            Kind::Hardlink(target) => {
                let (parent, name) = split(&target)?;
                let target = join(&self.resolve(&parent)?, &name);
                self.nodes.get(&target).map_or(NodeKind::Other, |node| node.kind.clone())
            }
            Kind::Other => NodeKind::Other,
        })
    }

    fn insert(&mut self, path: String, node: Node) -> Result<(), RootfsError> {
        if !matches!(node.kind, NodeKind::Directory) {
            self.remove_below(&path, None)?;
        }
        let target = if let NodeKind::Symlink(target) = &node.kind { target.len() } else { 0 };
        self.bytes += path.len() + target + NODE_BYTES;
        if self.bytes > MAX_TREE_BYTES {
            return Err(RootfsError::TooManyFiles);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Removes `path` and what is below it; with `above` only what lower layers have put there.
    fn remove(&mut self, path: &str, above: Option<usize>) -> Result<(), RootfsError> {
        if self.nodes.get(path).is_some_and(|node| above.is_none_or(|layer| node.layer < layer)) {
            self.nodes.remove(path);
        }
        self.remove_below(path, above)
    }

    fn remove_below(&mut self, path: &str, above: Option<usize>) -> Result<(), RootfsError> {
        // '0' comes right after '/'.
        let below = match path {
            "" => String::new()..char::MAX.to_string(),
            path => format!("{path}/")..format!("{path}0"),
        };
        let doomed: Vec<String> = self
            .nodes
            .range(below)
            .inspect(|(path, _)| self.effort += path.len())
            .filter(|(_, node)| above.is_none_or(|layer| node.layer < layer))
            .map(|(path, _)| path.clone())
            .collect();
        for path in doomed {
            self.nodes.remove(&path);
        }
        self.check_effort()
    }

    /// The real path that `path` leads to when all links are followed, as if this tree were the whole file system:
    /// nothing leads out of it. What does not exist is taken as it is written.
    fn resolve(&mut self, path: &str) -> Result<String, RootfsError> {
        let mut real = String::new();
        let mut links = 0;
        let mut pending: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        while let Some(component) = pending.pop() {
            self.effort += real.len() + component.len() + 1;
            self.check_effort()?;
            match component.as_str() {
                "" | "." => {}
                ".." => real.truncate(real.rfind('/').unwrap_or(0)),
                name => {
                    let candidate = join(&real, name);
                    let Some(Node { kind: NodeKind::Symlink(target), .. }) = self.nodes.get(&candidate)
                    else {
                        real = candidate;
                        continue;
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(RootfsError::Hostile("symbolic links in a circle"));
                    }
                    if target.starts_with('/') {
                        real.clear();
                    }
                    pending.extend(target.rsplit('/').map(str::to_owned));
                }
            }
        }
        Ok(real)
    }

    fn check_effort(&self) -> Result<(), RootfsError> {
        if self.effort > MAX_EFFORT { Err(RootfsError::TooManyFiles) } else { Ok(()) }
    }
}

const ENDLESS: RootfsError = RootfsError::Hostile("an endless file name");

/// The directory and the name of an entry; the name is empty for the root itself.
fn split(path: &str) -> Result<(String, String), RootfsError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(ENDLESS);
    }
    let mut components: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if components.contains(&"..") {
        return Err(RootfsError::Hostile("a path that leads out of it"));
    }
    let name = components.pop().unwrap_or_default().to_owned();
    Ok((components.join("/"), name))
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}
