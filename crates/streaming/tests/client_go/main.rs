//! client-go, as kubectl has it, against servers that are made with this crate.

#![allow(clippy::unwrap_used)]

mod client;
mod portforward;
mod remotecommand;
mod server;
