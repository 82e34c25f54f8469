//! What a pod refers to.

pub(super) use coracle_core::references::references;
