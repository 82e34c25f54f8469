//! Linux containers through a runtime that speaks the Container Runtime Interface (CRI v1): containerd, CRI-O.
//!
//! A thin adapter: [`CriProvider`] turns the calls of [`coracle_provider::Provider`] into the runtime's. What CRI does
//! not have it adds: the order in which states came about (revisions), and that a call which is dropped, repeated or
//! made by two at once is one.
//!
//! - `client`: the connection and the calls, each with its deadline;
//! - `convert`: from the provider's types to CRI's and back;
//! - `table`: what is known of sandboxes and containers, in order;
//! - `observe`: looking at the runtime, to bring the table up to date;
//! - `provider`: the trait.

mod bindings;
mod client;
mod convert;
mod error;
mod flights;
mod observe;
mod provider;
mod table;

pub use client::CgroupDriver;
pub use provider::{CriProvider, Options};
