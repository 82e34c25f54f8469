//! Guests: what they are, what they get to see, and how they run.

mod command;
mod command_line;
mod files;
mod linkers;
mod memory;
mod meter;
mod outcome;
mod program;
mod service;
mod state;
mod stdio;
mod stop;

pub(crate) use command::{Invocation, run as run_command, run_main};
pub(crate) use command_line::{arguments, environment};
pub(crate) use files::open as open_files;
pub(crate) use linkers::Linkers;
pub(crate) use memory::ContainerMemory;
pub(crate) use meter::CpuMeter;
pub(crate) use outcome::Outcome;
pub(crate) use program::Program;
pub use service::ServiceLimits;
pub(crate) use service::{Reuse, Service};
pub(crate) use state::ContainerEnv;
pub(crate) use stdio::{Client, ContainerStdio, Session};
pub(crate) use stop::{Stop, request as request_stop};
