//! The API as its clients see it: over real TLS, with a kubelet and an apiserver that are fakes.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod access;
mod fakes;
mod health;
mod limits;
mod logs;
mod metrics;
mod pages;
mod pki;
mod pods;
mod proxy;
mod server;
mod sessions;
mod stats;
mod tls;
