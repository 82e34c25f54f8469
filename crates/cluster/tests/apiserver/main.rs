//! The adapters against a real kube-apiserver, with a node's own certificate.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

mod access;
mod bed;
mod client;
mod events;
mod node;
mod objects;
mod pods;
mod restart;
mod status;
