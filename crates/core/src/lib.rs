//! The kubelet's pipeline, under upstream's names.

pub mod expansion;
pub mod fieldpath;
pub mod ports;
pub mod quantity;
