//! `coracle run`, as a developer calls it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, Finished, Process};
use crate::programs;
use crate::scratch::Scratch;
use crate::wait::Deadline;

/// How long a run may take that has an end.
const RUN: u64 = 60;

/// A place to run in: a root directory of its own, and the folder that relative paths start from.
pub struct Developer {
    scratch: Scratch,
}

impl Developer {
    /// An empty place.
    pub fn new() -> Result<Self> {
        Ok(Self { scratch: Scratch::new("run")? })
    }

    /// A file in the working folder.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.scratch.write(Path::new("work").join(name), content).map(drop)
    }

    /// A guest in the working folder, as `NAME.wasm`.
    pub fn guest(&self, name: &str) -> Result<()> {
        self.file(&format!("{name}.wasm"), crate::guests::bytes(name)?)
    }

    /// The folder of all the files that the agent keeps.
    pub fn root(&self) -> std::path::PathBuf {
        self.scratch.join("root")
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let work = self.scratch.join("work");
        std::fs::create_dir_all(&work)?;
        let mut command = process::tethered(programs::coracle()?);
        command.arg("run").arg("--root-dir").arg(self.root()).args(args).current_dir(work);
        Ok(command)
    }

    /// `coracle run ARGS…` to its end.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        process::finish(self.command(args)?, None, Deadline::seconds(RUN))
    }

    /// `coracle run ARGS…` with a text on its standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Result<Finished> {
        process::finish(self.command(args)?, Some(input.as_bytes()), Deadline::seconds(RUN))
    }

    /// `coracle run ARGS…` in the background.
    pub fn start(&self, args: &[&str]) -> Result<Process> {
        Process::start("coracle run", self.command(args)?, &self.scratch.join("run.log"))
    }
}
