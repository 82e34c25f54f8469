//! The kubelet's pipeline, under upstream's names.

pub mod expansion;
pub mod fieldpath;
pub mod host;
pub mod logs;
pub mod ports;
pub mod quantity;
