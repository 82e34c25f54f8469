//! The rules of the dependency graph: who may import whom, and what deny.toml says of everything else.

// Clippy's exception for tests ends at the test functions; what they share is a test as well.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, ParseMode};

/// Doors: crates of this workspace and what else has one owner, and who of the workspace may depend on them. What is
/// not listed, anyone may use.
const DOORS: &[(&str, &[&str])] = &[
    (
        "coracle-provider",
        &[
            "coracle",
            "coracle-cluster",
            "coracle-core",
            "coracle-cri",
            "coracle-node",
            "coracle-probes",
            "coracle-server",
            "coracle-sim",
            "coracle-volumes",
            "coracle-wasm",
        ],
    ),
    (
        "coracle-core",
        &[
            "coracle",
            "coracle-cluster",
            "coracle-node",
            "coracle-nodeapi",
            "coracle-probes",
            "coracle-server",
            "coracle-sim",
            "coracle-volumes",
        ],
    ),
    ("coracle-cluster", &["coracle"]),
    ("coracle-cri", &["coracle"]),
    ("coracle-node", &["coracle"]),
    ("coracle-nodeapi", &["coracle"]),
    ("coracle-probes", &["coracle"]),
    ("coracle-server", &["coracle"]),
    ("coracle-sim", &[]),
    ("coracle-streaming", &["coracle-server"]),
    ("coracle-volumes", &["coracle"]),
    ("coracle-wasm", &["coracle"]),
    // The system tests know the binary, not its crates.
    ("coracle", &[]),
    ("coracle-tests", &[]),
    ("xtask", &[]),
    // Errors without a type are for those who only report them.
    ("anyhow", &["coracle", "coracle-tests", "xtask"]),
    ("axum", &["coracle-server"]),
    ("clap", &["coracle"]),
    ("kube", &["coracle-cluster", "coracle-tests"]),
    ("oci-client", &["coracle-wasm"]),
    ("prometheus", &["coracle-core", "coracle-server", "coracle-wasm"]),
    ("rtnetlink", &["coracle-wasm"]),
    ("tonic", &["coracle-cri", "coracle-nodeapi"]),
    ("wasmtime", &["coracle-wasm"]),
    ("wasmtime-wasi", &["coracle-wasm"]),
    ("wasmtime-wasi-http", &["coracle-wasm"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
}

#[derive(Deserialize)]
struct Skip {
    /// `name@version`
    #[serde(rename = "crate")]
    name: String,
}

/// The graph that ends up in binaries: without dev-dependencies.
struct Graph {
    metadata: Metadata,
}

impl Graph {
    fn read() -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ]);
        let output = cargo.current_dir(repository()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { metadata: serde_json::from_slice(&output.stdout).unwrap() }
    }

    fn package(&self, id: &str) -> &Package {
        self.metadata.packages.iter().find(|package| package.id == id).unwrap()
    }

    /// Dependents and what they depend on.
    fn edges(&self) -> impl Iterator<Item = (&Node, &Package, &Package)> {
        self.metadata.resolve.nodes.iter().flat_map(move |node| {
            let real =
                node.deps.iter().filter(|it| it.dep_kinds.iter().any(|it| it.kind.as_deref() != Some("dev")));
            real.map(move |it| (node, self.package(&node.id), self.package(&it.pkg)))
        })
    }

    /// Everything that the workspace leads to.
    fn reachable(&self) -> Vec<&Package> {
        let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (node, _, dependency) in self.edges() {
            edges.entry(node.id.as_str()).or_default().push(&dependency.id);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = self.metadata.workspace_members.iter().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(edges.get(id).into_iter().flatten());
            }
        }
        found.into_iter().map(|id| self.package(id)).collect()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn deny() -> Deny {
    toml::from_str(&std::fs::read_to_string(repository().join("deny.toml")).unwrap()).unwrap()
}

#[test]
fn crates_enter_others_only_by_their_doors() {
    let graph = Graph::read();
    let mut wrong = Vec::new();
    for (node, dependent, dependency) in graph.edges() {
        let door = DOORS.iter().find(|(name, _)| *name == dependency.name);
        let allowed = door.is_none_or(|(_, guests)| guests.contains(&dependent.name.as_str()));
        if graph.metadata.workspace_members.contains(&node.id) && !allowed {
            wrong.push(format!("{} may not depend on {}", dependent.name, dependency.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The streaming protocols are a library of their own: what it leads to has nothing of this workspace, and nothing of
/// Kubernetes' API.
#[test]
fn the_streaming_protocols_know_no_kubelet() {
    let graph = Graph::read();
    let ours = |package: &Package| graph.metadata.workspace_members.contains(&package.id);
    let wrong: Vec<_> = graph
        .edges()
        .filter(|(_, dependent, _)| dependent.name == "coracle-streaming")
        .map(|(_, _, dependency)| dependency)
        .filter(|it| ours(it) || it.name.starts_with("k8s-") || it.name.starts_with("kube"))
        .map(|it| it.name.as_str())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn banned_crates_are_absent() {
    let (graph, deny) = (Graph::read(), deny());
    let mut wrong = Vec::new();
    let reachable: BTreeSet<&str> = graph.reachable().iter().map(|package| package.id.as_str()).collect();
    for (node, dependent, dependency) in graph.edges() {
        let ban = deny.bans.deny.iter().find(|ban| ban.name == dependency.name);
        let is_wrapped = ban.is_none_or(|ban| ban.wrappers.contains(&dependent.name));
        if reachable.contains(node.id.as_str()) && !is_wrapped {
            wrong.push(format!("{} depends on {}", dependent.name, dependency.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn licences_are_among_the_allowed() {
    let (graph, deny) = (Graph::read(), deny());
    let mut wrong = Vec::new();
    for package in graph.reachable() {
        let text = package.license.as_deref().unwrap_or_default();
        let is_allowed = Expression::parse_mode(text, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|one| deny.licenses.allow.contains(&one.to_string()))
        });
        if !is_allowed {
            wrong.push(format!("{} {}: `{text}`", package.name, package.version));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let graph = Graph::read();
    for package in graph.reachable() {
        let registry = package.source.as_deref().is_some_and(|source| source.starts_with("registry+"));
        assert!(registry || graph.metadata.workspace_members.contains(&package.id), "{}", package.id);
    }
}

/// The newest version needs no exception; each older one does, and each exception must be needed.
#[test]
fn crates_are_there_once() {
    let (graph, deny) = (Graph::read(), deny());
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in graph.reachable() {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let skipped: BTreeSet<String> = deny.bans.skip.into_iter().map(|skip| skip.name).collect();
    let older: BTreeSet<String> = versions
        .iter_mut()
        .flat_map(|(name, versions)| {
            versions.sort_by_key(|version| numbers(version));
            let older = &versions[..versions.len() - 1];
            older.iter().map(|version| format!("{name}@{version}")).collect::<Vec<_>>()
        })
        .collect();
    let unlisted: Vec<_> = older.difference(&skipped).collect();
    let needless: Vec<_> = skipped.difference(&older).collect();
    assert!(unlisted.is_empty(), "duplicates that deny.toml does not skip: {unlisted:#?}");
    assert!(needless.is_empty(), "exceptions in deny.toml that nothing needs: {needless:#?}");
}

fn numbers(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.').filter_map(|part| part.parse().ok()).collect()
}
