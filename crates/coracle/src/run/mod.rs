//! `coracle run`: pods without a cluster, through the same kubelet that a cluster gets.

mod args;
mod manifest;
mod node;
mod objects;
mod output;
mod progress;
mod session;
mod sink;
mod state_dir;

use std::process::ExitCode;

pub use args::RunArgs;

use crate::logging::{self, Format};
use crate::runtimes::Runtimes;
use crate::{exit, signals::Signals};

/// Runs the command and answers its exit code: that of the first container that failed.
pub fn main(args: RunArgs) -> ExitCode {
    logging::start(args.level(), Format::Text);
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::report(&error, exit::NOT_STARTED),
    }
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    let documents = manifest::load(&args)?;
    let state = state_dir::StateDir::open(args.root_dir.as_deref())?;
    let runtimes = Runtimes::start()?;
    runtimes.control.block_on(async {
        let signals = Signals::listen()?;
        let node = node::Node::start(&args, documents, state.path(), &runtimes).await?;
        let code = session::run(&node, signals).await;
        node.shut_down().await;
        Ok(code)
    })
}
