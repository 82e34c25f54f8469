//! `/metrics/cadvisor`: what dashboards and alerts read of containers and machines (upstream: cAdvisor's
//! `metrics/prometheus.go`, `prometheus_machine.go`, and `containerPrometheusLabelsFunc`). Those of its metrics are here
//! that there is something to say about: nobody reads control groups.

use coracle_core::machine::{MachineInfo, NodeUsage};
use coracle_core::stats::{ContainerUsage, PodUsage, PodsUsage};
use coracle_provider::{InterfaceStats, NetworkStats, Resources};
use prometheus::proto::MetricFamily;

use super::family::Family;
use super::seconds;

const LABELS: &[&str] = &["container", "id", "image", "name", "namespace", "pod"];
const CPU_LABELS: &[&str] = &["container", "cpu", "id", "image", "name", "namespace", "pod"];
const NETWORK_LABELS: &[&str] = &["container", "id", "image", "interface", "name", "namespace", "pod"];
const DEVICE_LABELS: &[&str] = &["container", "device", "id", "image", "name", "namespace", "pod"];

/// What the name of a pod's control group begins with, where there are such groups. Queries tell pods from the machine by it.
const PODS: &str = "/kubepods";

/// The Linux default for `cpu.cfs_period_us`, in which a quota is told.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The metrics; without the machine's own usage if that is not known.
pub(super) fn cadvisor_metrics(
    machine: &MachineInfo,
    node: Option<&NodeUsage>,
    pods: &PodsUsage,
) -> Vec<MetricFamily> {
    let mut metrics = Metrics::new();
    if let Some(node) = node {
        metrics.add_node(node);
    }
    for pod in &pods.pods {
        metrics.add_pod(pod);
    }
    let failed = f64::from(u8::from(node.is_none() || !pods.failed.is_empty()));
    let own = [
        Family::gauge("container_scrape_error", "1 if something could not be measured, 0 otherwise", &[])
            .with(&[], failed),
        Family::gauge("machine_scrape_error", "1 if the machine is not known, 0 otherwise", &[])
            .with(&[], 0.0),
        machine_info(machine),
        machine_gauge("machine_cpu_cores", "Logical processors", f64::from(machine.cpus), machine),
        machine_gauge("machine_memory_bytes", "Memory, in bytes", machine.memory_bytes as f64, machine),
        machine_gauge("machine_swap_bytes", "Swap, in bytes", machine.swap_bytes as f64, machine),
    ];
    own.into_iter().chain(metrics.into_families()).filter_map(Family::finish).collect()
}

fn machine_gauge(name: &str, help: &str, value: f64, machine: &MachineInfo) -> Family {
    let labels = [machine.boot_id.as_str(), &machine.machine_id, &machine.system_uuid];
    Family::gauge(name, help, &["boot_id", "machine_id", "system_uuid"]).with(&labels, value)
}

fn machine_info(machine: &MachineInfo) -> Family {
    let labels = ["", "", machine.kernel_version.as_str(), machine.os_image.as_str()];
    let names = &["cadvisorRevision", "cadvisorVersion", "kernelVersion", "osVersion"];
    Family::gauge("cadvisor_version_info", "Always 1; the labels say what runs on the machine", names)
        .with(&labels, 1.0)
}

/// Whom a sample is about: a container, a pod, or the machine.
#[derive(Clone, Copy, Default)]
struct Subject<'a> {
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

impl<'a> Subject<'a> {
    fn labels(&self) -> [&'a str; 6] {
        [self.container, self.id, self.image, self.name, self.namespace, self.pod]
    }
}

/// What a subject has used.
struct Sample {
    timestamp_ms: i64,
    cpu_nanos: u64,
    working_set_bytes: u64,
    usage_bytes: u64,
    rss_bytes: u64,
}

struct Metrics {
    last_seen: Family,
    start_time: Family,
    cpu_usage: Family,
    memory_usage: Family,
    memory_working_set: Family,
    memory_rss: Family,
    fs_usage: Family,
    fs_limit: Family,
    spec_cpu_period: Family,
    spec_cpu_quota: Family,
    spec_cpu_shares: Family,
    spec_memory_limit: Family,
    spec_memory_reservation: Family,
    receive_bytes: Family,
    receive_errors: Family,
    transmit_bytes: Family,
    transmit_errors: Family,
}

impl Metrics {
    fn new() -> Self {
        let gauge = |name: &str, help: &str| Family::gauge(name, help, LABELS);
        let network = |name: &str, help: &str| Family::counter(name, help, NETWORK_LABELS);
        Self {
            last_seen: gauge(
                "container_last_seen",
                "When the container was last seen, in seconds since 1970",
            ),
            start_time: gauge(
                "container_start_time_seconds",
                "When the container started, in seconds since 1970",
            ),
            cpu_usage: Family::counter(
                "container_cpu_usage_seconds_total",
                "Processor time, in seconds",
                CPU_LABELS,
            ),
            memory_usage: gauge("container_memory_usage_bytes", "Memory in use, caches included, in bytes"),
            memory_working_set: gauge("container_memory_working_set_bytes", "Working set, in bytes"),
            memory_rss: gauge("container_memory_rss", "Memory that no file stands behind, in bytes"),
            fs_usage: Family::gauge("container_fs_usage_bytes", "Disk in use, in bytes", DEVICE_LABELS),
            fs_limit: Family::gauge(
                "container_fs_limit_bytes",
                "Disk that there is, in bytes",
                DEVICE_LABELS,
            ),
            spec_cpu_period: gauge("container_spec_cpu_period", "The period of the quota, in microseconds"),
            spec_cpu_quota: gauge("container_spec_cpu_quota", "Processor time in a period, in microseconds"),
            spec_cpu_shares: gauge("container_spec_cpu_shares", "The weight under contention"),
            spec_memory_limit: gauge("container_spec_memory_limit_bytes", "The memory limit, in bytes"),
            spec_memory_reservation: gauge(
                "container_spec_memory_reservation_limit_bytes",
                "The memory request, in bytes",
            ),
            receive_bytes: network("container_network_receive_bytes_total", "Bytes received"),
            receive_errors: network("container_network_receive_errors_total", "Errors when receiving"),
            transmit_bytes: network("container_network_transmit_bytes_total", "Bytes sent"),
            transmit_errors: network("container_network_transmit_errors_total", "Errors when sending"),
        }
    }

    fn add_node(&mut self, node: &NodeUsage) {
        let machine = Subject { id: "/", ..Subject::default() };
        let sample = Sample {
            timestamp_ms: node.timestamp.as_millisecond(),
            cpu_nanos: node.cpu_usage_core_nanos,
            working_set_bytes: node.memory.working_set_bytes,
            usage_bytes: node.memory.usage_bytes,
            rss_bytes: node.memory.rss_bytes,
        };
        self.add_sample(machine, &sample);
        self.start_time.add(&machine.labels(), node.boot_time.as_second() as f64, None);
        for interface in &node.interfaces {
            self.add_interface(machine, interface, sample.timestamp_ms);
        }
        let device = ["", "/", "/", "", "", "", ""];
        let at = Some(sample.timestamp_ms);
        self.fs_usage.add(&device, node.root_fs.used_bytes as f64, at);
        self.fs_limit.add(&device, node.root_fs.capacity_bytes as f64, at);
    }

    fn add_pod(&mut self, pod: &PodUsage) {
        let group = format!("{PODS}/pod{}", pod.pod.uid);
        let whole =
            Subject { id: &group, namespace: &pod.pod.namespace, pod: &pod.pod.name, ..Subject::default() };
        let samples: Vec<Sample> = pod.containers.iter().map(sample).collect();
        let sum = |of: fn(&Sample) -> u64| samples.iter().map(of).sum();
        let all = Sample {
            timestamp_ms: samples.iter().map(|sample| sample.timestamp_ms).min().unwrap_or_default(),
            cpu_nanos: sum(|sample| sample.cpu_nanos),
            working_set_bytes: sum(|sample| sample.working_set_bytes),
            usage_bytes: sum(|sample| sample.usage_bytes),
            rss_bytes: sum(|sample| sample.rss_bytes),
        };
        self.add_sample(whole, &all);
        self.start_time.add(&whole.labels(), pod.started_at.as_second() as f64, None);
        for (container, sample) in pod.containers.iter().zip(&samples) {
            let id = format!("{group}/{}", container.status.id);
            let subject = Subject {
                container: &container.status.name,
                id: &id,
                image: &container.status.image_id,
                name: &container.status.id,
                ..whole
            };
            self.add_container(subject, container, sample);
        }
        if let Some(network) = &pod.network {
            self.add_network(whole, &pod.sandbox_id, network);
        }
    }

    fn add_container(&mut self, subject: Subject<'_>, container: &ContainerUsage, sample: &Sample) {
        self.add_sample(subject, sample);
        let labels = subject.labels();
        if let Some(start) = container.status.started_at {
            self.start_time.add(&labels, start.as_second() as f64, None);
        }
        if let Some(disk) = container.stats.writable_layer {
            let Subject { container, id, image, name, namespace, pod } = subject;
            let device = [container, "", id, image, name, namespace, pod];
            self.fs_usage.add(&device, disk.used_bytes as f64, Some(sample.timestamp_ms));
        }
        self.add_resources(&labels, &container.status.resources);
    }

    /// As the kernel would be told: a limit as a quota in each period, a request as shares of 1,024 a processor.
    fn add_resources(&mut self, labels: &[&str], resources: &Resources) {
        if let Some(millis) = resources.cpu_limit_millis {
            self.spec_cpu_period.add(labels, CPU_PERIOD_MICROS as f64, None);
            self.spec_cpu_quota.add(labels, (millis * CPU_PERIOD_MICROS / 1000) as f64, None);
        }
        let shares = resources.cpu_request_millis.map_or(2, |millis| (millis * 1024 / 1000).max(2));
        self.spec_cpu_shares.add(labels, shares as f64, None);
        self.spec_memory_limit.add(labels, resources.memory_limit_bytes.unwrap_or(0) as f64, None);
        self.spec_memory_reservation.add(labels, resources.memory_request_bytes.unwrap_or(0) as f64, None);
    }

    fn add_sample(&mut self, subject: Subject<'_>, sample: &Sample) {
        let (labels, at) = (subject.labels(), Some(sample.timestamp_ms));
        let Subject { container, id, image, name, namespace, pod } = subject;
        self.last_seen.add(&labels, (sample.timestamp_ms / 1000) as f64, at);
        let cpu = [container, "total", id, image, name, namespace, pod];
        self.cpu_usage.add(&cpu, seconds(sample.cpu_nanos), at);
        self.memory_usage.add(&labels, sample.usage_bytes as f64, at);
        self.memory_working_set.add(&labels, sample.working_set_bytes as f64, at);
        self.memory_rss.add(&labels, sample.rss_bytes as f64, at);
    }

    /// Networks belong to sandboxes. Where those are containers, this is the one that has the network.
    fn add_network(&mut self, pod: Subject<'_>, sandbox_id: &str, network: &NetworkStats) {
        let subject = Subject { name: sandbox_id, ..pod };
        for interface in &network.interfaces {
            self.add_interface(subject, interface, network.timestamp.as_millisecond());
        }
    }

    fn add_interface(&mut self, subject: Subject<'_>, interface: &InterfaceStats, timestamp_ms: i64) {
        let Subject { container, id, image, name, namespace, pod } = subject;
        let (labels, at) =
            ([container, id, image, &interface.name, name, namespace, pod], Some(timestamp_ms));
        self.receive_bytes.add(&labels, interface.rx_bytes as f64, at);
        self.receive_errors.add(&labels, interface.rx_errors as f64, at);
        self.transmit_bytes.add(&labels, interface.tx_bytes as f64, at);
        self.transmit_errors.add(&labels, interface.tx_errors as f64, at);
    }

    fn into_families(self) -> [Family; 17] {
        [
            self.last_seen,
            self.start_time,
            self.cpu_usage,
            self.memory_usage,
            self.memory_working_set,
            self.memory_rss,
            self.fs_usage,
            self.fs_limit,
            self.spec_cpu_period,
            self.spec_cpu_quota,
            self.spec_cpu_shares,
            self.spec_memory_limit,
            self.spec_memory_reservation,
            self.receive_bytes,
            self.receive_errors,
            self.transmit_bytes,
            self.transmit_errors,
        ]
    }
}

fn sample(container: &ContainerUsage) -> Sample {
    let stats = &container.stats;
    Sample {
        timestamp_ms: stats.timestamp.as_millisecond(),
        cpu_nanos: stats.cpu_usage_core_nanos,
        working_set_bytes: stats.memory.working_set_bytes,
        usage_bytes: stats.memory.usage_bytes,
        rss_bytes: stats.memory.rss_bytes,
    }
}
