//! The kubelet's pipeline, under upstream's names.

pub mod ports;
