//! The tables of flags and fields against upstream's own, as `tests/go/kubernetes/kubeletoptions` prints them.

use std::collections::{BTreeMap, BTreeSet};

use coracle::config::{FIELDS, Field, Flag, Kind, Unset, flags};
use serde_json::Value;

use super::{Files, resolve};

const UPSTREAM_FIELDS: &str = include_str!("../../upstream/fields.txt");
const UPSTREAM_FLAGS: &str = include_str!("../../upstream/flags.txt");
const UPSTREAM_DEFAULTS: &str = include_str!("../../upstream/defaults.json");

/// Fields whose default differs on purpose.
const OTHER_DEFAULT: [&str; 2] = [
    // The node runs Wasm pods unless it is given a container runtime.
    "containerRuntimeEndpoint",
    // Upstream fills this one in when it loads a file, which its printed defaults do not show.
    "evictionHard",
];

/// Fields where an explicit zero means something else on purpose: upstream's flag says that 0 is the default here.
const OTHER_ZERO: [&str; 1] = ["kubeAPIQPS"];

fn upstream_types() -> BTreeMap<&'static str, &'static str> {
    let lines = UPSTREAM_FIELDS.lines().filter_map(|line| line.split_once('\t'));
    lines.filter(|(path, _)| !matches!(*path, "kind" | "apiVersion")).collect()
}

#[test]
fn every_field_of_upstream_is_in_the_table_with_its_type() {
    let types = upstream_types();
    let known: BTreeSet<_> = FIELDS.iter().map(|field| field.path).collect();
    assert_eq!(known.len(), FIELDS.len(), "no field is listed twice");
    assert_eq!(known, types.keys().copied().collect());
    for field in FIELDS {
        assert!(fits(field.kind, types[field.path]), "{} is {}", field.path, types[field.path]);
        assert!(
            zero_fits(field, types[field.path]) || OTHER_ZERO.contains(&field.path),
            "{}: {:?} does not fit {}",
            field.path,
            field.unset,
            types[field.path]
        );
    }
}

fn fits(kind: Kind, go: &str) -> bool {
    let kinds: &[Kind] = match go.trim_start_matches('*') {
        "bool" => &[Kind::Bool],
        "int32" => &[Kind::Int32],
        "int64" => &[Kind::Int64],
        "float64" => &[Kind::Float],
        "v1.VerbosityLevel" => &[Kind::Level],
        "v1.Duration" => &[Kind::Duration],
        "v1.TimeOrMetaDuration" => &[Kind::DurationOrNanos],
        "resource.QuantityValue" => &[Kind::Quantity],
        "[]string" => &[Kind::Texts, Kind::Ips],
        "[]int32" => &[Kind::Ints],
        "[]v1.Taint" => &[Kind::Taints],
        "[]v1beta1.MemoryReservation" => &[Kind::ReservedMemory],
        "[]v1beta1.ShutdownGracePeriodByPodPriority" => &[Kind::PriorityGracePeriods],
        "v1.VModuleConfiguration" => &[Kind::VModule],
        "map[string]string" => &[Kind::TextMap, Kind::Thresholds],
        "map[string]bool" => &[Kind::BoolMap],
        "map[string][]string" => &[Kind::TextListMap],
        // Plain strings and the string types of single fields.
        _ => &[Kind::Text, Kind::Path, Kind::Ip, Kind::Quantity],
    };
    kinds.contains(&kind)
}

/// A pointer, a list or a map can be absent; a plain value cannot be told from zero.
fn zero_fits(field: &Field, go: &str) -> bool {
    let is_pointer = go.starts_with('*');
    let can_be_nil =
        is_pointer || go.starts_with("[]") || go.starts_with("map") || go == "v1.VModuleConfiguration";
    match field.unset {
        Unset::Zero => !is_pointer,
        Unset::Nil => is_pointer,
        Unset::NilMeans(_) => can_be_nil,
        Unset::ZeroMeans(_) => !can_be_nil,
    }
}

#[test]
fn every_default_is_upstreams() {
    let defaults: Value = serde_json::from_str(UPSTREAM_DEFAULTS).unwrap();
    for field in FIELDS.iter().filter(|field| !OTHER_DEFAULT.contains(&field.path)) {
        let upstream = field.path.split('.').try_fold(&defaults, |value, name| value.get(name));
        let zero = |value: &&Value| matches!(value, Value::Bool(false)) || **value == "0s" || **value == 0;
        match field.unset.default_value() {
            Some(ours) => assert_eq!(Some(&ours), upstream, "{}", field.path),
            None => assert_eq!(upstream.filter(|value| !zero(value)), None, "{}", field.path),
        }
    }
}

#[test]
fn upstreams_own_defaults_give_no_warning_and_change_nothing() {
    let mut document: Value = serde_json::from_str(UPSTREAM_DEFAULTS).unwrap();
    let root = document.as_object_mut().unwrap();
    // Without a container runtime, a node here runs Wasm pods alone.
    assert!(root.remove("containerRuntimeEndpoint").is_some());
    let files = Files::new();
    let config = files.write("config.json", &document.to_string());

    let from_file = resolve(&["--kubeconfig=/k", "--config", &config]).unwrap();
    let built_in = resolve(&["--kubeconfig=/k"]).unwrap();
    assert_eq!(from_file.warnings, Vec::<String>::new());
    assert_eq!(from_file.config, built_in.config);
}

#[test]
fn every_flag_of_upstream_is_in_the_table() {
    let upstream: BTreeMap<_, _> = UPSTREAM_FLAGS
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().unwrap_or_default();
            let (name, kind, field, form, default) = (next(), next(), next(), next(), next());
            (name, (kind, field, form, default))
        })
        // The command line parser brings this one.
        .filter(|(name, _)| *name != "help")
        .collect();
    let ours: Vec<_> = flags().into_iter().filter(Flag::is_upstreams).collect();
    let names: BTreeSet<_> = ours.iter().map(|flag| flag.name).collect();
    assert_eq!(names, upstream.keys().copied().collect());
    for flag in ours {
        let (kind, field, form, default) = upstream[flag.name];
        assert_eq!(flag.field.map_or("-", |field| field.path), field, "--{}", flag.name);
        assert_eq!(flag.kind == Kind::Bool || kind == "version", form == "switch", "--{}", flag.name);
        if flag.field.is_none() {
            let ours = flag.unset.default_value().map(|value| value.to_string().trim_matches('"').to_owned());
            let zero = matches!(default, "" | "false" | "0s").then(String::new);
            assert!(
                ours.as_deref() == Some(default) || ours.is_none() && zero.is_some(),
                "--{}: {default}",
                flag.name
            );
        }
    }
}
