//! Checks across values, with upstream's messages (`ValidateKubeletConfiguration`), for the fields this program uses.

use coracle_core::pull_manager::VerificationPolicy;
use coracle_core::quantity::Quantity;
use serde_json::Value;

use super::field::Kind;
use super::fields::FIELDS;
use super::support::Support;
use super::values::Values;
use super::{duration, eviction, node_resources, taints};

/// All that is wrong with the values; empty if they can be used.
pub(super) fn validate(values: &Values, standalone: bool) -> Vec<String> {
    let mut problems = Vec::new();
    numbers(values, &mut problems);
    durations(values, &mut problems);
    image_gc(values, &mut problems);
    images_and_logs(values, &mut problems);
    taints(values, &mut problems);
    serving(values, standalone, &mut problems);
    node_resources::validate(values, &mut problems);
    eviction::validate(values, &mut problems);
    problems.into_iter().map(|problem| format!("invalid configuration: {problem}")).collect()
}

fn numbers(values: &Values, problems: &mut Vec<String>) {
    if values.int("nodeLeaseDurationSeconds") <= 0 {
        problems.push("nodeLeaseDurationSeconds must be greater than 0".to_owned());
    }
    for (path, flag) in [
        ("eventBurst", "event-burst"),
        ("eventRecordQPS", "event-qps"),
        ("kubeAPIBurst", "kube-api-burst"),
        ("kubeAPIQPS", "kube-api-qps"),
        ("maxPods", "max-pods"),
        ("registryBurst", "registry-burst"),
        ("registryPullQPS", "registry-qps"),
        ("podsPerCore", "pods-per-core"),
    ] {
        let value = values.int(path);
        if value < 0 {
            problems.push(format!("{path} (--{flag}) {value} must not be a negative number"));
        }
    }
    for (path, flag, lowest) in [("healthzPort", "healthz-port", 0), ("port", "port", 1)] {
        let value = values.int(path);
        if !(lowest..=65535).contains(&value) {
            problems.push(format!("{path} (--{flag}) {value} must be between 1 and 65535, inclusive"));
        }
    }
}

fn durations(values: &Values, problems: &mut Vec<String>) {
    let used = FIELDS
        .iter()
        .filter(|field| field.kind == Kind::Duration && matches!(field.support, Support::Works(_)));
    for field in used {
        let text = values.text(field.path).unwrap_or_default();
        if text.starts_with('-') {
            problems.push(format!("{} {text} must not be negative", field.path));
        }
    }
    let back_off = values.text("crashLoopBackOff.maxContainerRestartPeriod").unwrap_or_default();
    let nanos = duration::parse(back_off).unwrap_or_default();
    if !(1_000_000_000..=300_000_000_000).contains(&nanos) {
        problems.push(format!(
            "CrashLoopBackOff.MaxContainerRestartPeriod (got: {back_off}) must be set between 1s and 300s"
        ));
    }
}

fn image_gc(values: &Values, problems: &mut Vec<String>) {
    let (high, low) = (values.int("imageGCHighThresholdPercent"), values.int("imageGCLowThresholdPercent"));
    let (high_name, low_name) = (
        "imageGCHighThresholdPercent (--image-gc-high-threshold)",
        "imageGCLowThresholdPercent (--image-gc-low-threshold)",
    );
    for (name, value) in [(high_name, high), (low_name, low)] {
        if !(0..=100).contains(&value) {
            problems.push(format!("{name} {value} must be between 0 and 100, inclusive"));
        }
    }
    if low >= high {
        problems.push(format!("{low_name} {low} must be less than {high_name} {high}"));
    }
    let age = |path| values.text(path).unwrap_or("0s");
    let nanos = |text| duration::parse(text).unwrap_or_default();
    let (least, most) = (age("imageMinimumGCAge"), age("imageMaximumGCAge"));
    if nanos(most) > 0 && nanos(most) <= nanos(least) {
        problems.push(format!("imageMaximumGCAge {most} must be greater than imageMinimumGCAge {least}"));
    }
    let images = values.int("nodeStatusMaxImages");
    if images < -1 {
        problems
            .push(format!("nodeStatusMaxImages (--node-status-max-images) {images} must be -1 or greater"));
    }
}

fn images_and_logs(values: &Values, problems: &mut Vec<String>) {
    if let Some(parallel) = values.get("maxParallelImagePulls").and_then(Value::as_i64) {
        if parallel < 1 {
            problems.push(format!("maxParallelImagePulls {parallel} must be a positive number"));
        } else if parallel > 1 && values.bool("serializeImagePulls") {
            problems.push(
                "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is \
                 set to false"
                    .to_owned(),
            );
        }
    }
    let policy = values.text("imagePullCredentialsVerificationPolicy").unwrap_or_default();
    let list = values.get("preloadedImagesVerificationAllowlist").and_then(Value::as_array);
    let allowlist: Vec<String> =
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if !allowlist.is_empty() && policy != "NeverVerifyAllowlistedImages" {
        problems.push(
            "can't set `preloadedImagesVerificationAllowlist` if `imagePullCredentialsVertificationPolicy` is not \
             \"NeverVerifyAllowlistedImages\""
                .to_owned(),
        );
    } else if let Err(problem) = VerificationPolicy::new(policy, &allowlist) {
        problems.push(problem);
    }
    if values.int("containerLogMaxWorkers") < 1 {
        problems.push("containerLogMaxWorkers must be greater than or equal to 1".to_owned());
    }
    let interval = values.text("containerLogMonitorInterval").unwrap_or_default();
    if duration::parse(interval).unwrap_or_default() < 3_000_000_000 {
        problems.push(
            "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
                .to_owned(),
        );
    }
    if values.int("containerLogMaxFiles") <= 1 {
        problems.push("containerLogMaxFiles must be greater than 1".to_owned());
    }
    if let Err(problem) = Quantity::parse(values.text("containerLogMaxSize").unwrap_or_default()) {
        problems.push(format!("containerLogMaxSize (--container-log-max-size): {problem}"));
    }
    let logs = values.text("podLogsDir").unwrap_or_default();
    if !logs.starts_with('/') {
        problems.push(format!("pod logs path {logs:?} must be absolute path"));
    } else if logs != "/" && logs[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        problems.push(format!("pod logs path {logs:?} must be normalized"));
    }
    if !logs.is_ascii() {
        problems.push(format!("pod logs path {logs:?} must contain ASCII characters only"));
    }
    let format = values.text("logging.format").unwrap_or_default();
    if !matches!(format, "text" | "json") {
        problems.push(format!("logging.format: Invalid value: {format:?}: Unsupported log format"));
    }
}

fn taints(values: &Values, problems: &mut Vec<String>) {
    for taint in values.get("registerWithTaints").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| taint.get(name).and_then(Value::as_str).unwrap_or_default();
        if let Some(problem) = taints::problem(text("key"), text("value"), text("effect")) {
            problems.push(format!(
                "invalid taint: {}={}:{}: {problem}",
                text("key"),
                text("value"),
                text("effect")
            ));
        }
        if taint.get("timeAdded").is_some_and(|time| !time.is_null()) {
            problems.push("taint.TimeAdded is not nil".to_owned());
        }
    }
}

fn serving(values: &Values, standalone: bool, problems: &mut Vec<String>) {
    let is_set = |path| values.text(path).is_some_and(|text| !text.is_empty());
    if is_set("tlsCertFile") != is_set("tlsPrivateKeyFile") {
        problems.push("tlsCertFile and tlsPrivateKeyFile must be set together".to_owned());
    }
    let tls = values.text("tlsMinVersion").unwrap_or_default();
    if !matches!(tls, "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" | "VersionTLS13") {
        problems.push(format!("unknown tls version {tls:?}"));
    }
    let mode = values.text("authorization.mode").unwrap_or_default();
    if !matches!(mode, "AlwaysAllow" | "Webhook") {
        problems.push(format!("unknown authorization mode {mode}"));
    }
    if standalone && values.bool("authentication.webhook.enabled") {
        problems.push("no client provided, cannot use webhook authentication; give --kubeconfig".to_owned());
    }
    if standalone && mode == "Webhook" {
        problems.push("no client provided, cannot use webhook authorization; give --kubeconfig".to_owned());
    }
}
