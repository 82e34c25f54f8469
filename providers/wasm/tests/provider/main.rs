//! The provider as its callers see it, with real guests.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod artifacts;
mod attach;
mod bodies;
mod client;
mod commands;
mod contract;
mod etc;
mod exec;
mod files;
mod lifecycle;
mod logs;
mod networks;
mod services;
mod serving;
mod users;
mod worlds;
