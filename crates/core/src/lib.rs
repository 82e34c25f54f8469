//! The kubelet's pipeline, under upstream's names.

pub mod admission;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod credential_provider;
pub mod expansion;
#[cfg(test)]
mod fakes;
pub mod fieldpath;
pub mod host;
pub mod image_gc;
pub mod kubelet;
pub mod kuberuntime;
pub mod lifecycle;
pub mod logs;
pub mod machine;
pub mod nodestatus;
pub mod pleg;
pub mod pod;
pub mod pod_cache;
pub mod pod_manager;
pub mod pod_resources;
pub mod pod_workers;
pub mod ports;
pub mod preemption;
pub mod prober;
pub mod providers;
pub mod pull_manager;
pub mod qos;
pub mod quantity;
pub mod reason_cache;
pub mod recorder;
pub mod references;
pub mod runtime_state;
pub mod status;
pub mod token_bucket;
pub mod work_queue;
