//! The adapters against a real kube-apiserver, with a node's own certificate.

mod access;
mod bed;
mod events;
mod node;
mod objects;
mod pods;
mod restart;
mod status;
