//! The binary as its users meet it: `coracle run` on a developer's machine, and a node in a real cluster with kubectl
//! as the client. `cargo xtask test system` runs it in a network of its own.

// Clippy's exception for tests ends at the test functions; what they share is a test as well.
#![allow(clippy::unwrap_used)]

mod bed;
mod calls;
mod churn;
mod configuration;
mod container_sessions;
mod containers;
mod crash_loop;
mod eviction;
mod guests;
mod images;
mod isolation;
mod lifecycle;
mod logs;
mod metrics;
mod networking;
mod node;
mod probes;
mod refusals;
mod resize;
mod restarts;
mod run;
mod run_refusals;
mod sessions;
mod standalone;
mod static_pods;
mod support;
mod workloads;
