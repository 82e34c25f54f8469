//! Running other programs, with progress that a reader can follow.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Runs a command with its output going to the terminal. An exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", name(command)))?;
    succeeded(command, status)
}

/// Like `run`, but ends the command with its process group once the time is over. The group is its own, so this is not for
/// terminals: an interrupt does not reach it.
pub(crate) fn run_within(time: Duration, command: &mut Command) -> Result<()> {
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("cannot run {}", name(command)))?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return succeeded(command, status);
        }
        if begun.elapsed() > time {
            let group = format!("-{}", child.id());
            output(Command::new("kill").args(["-KILL", "--", &group]))?;
            child.wait()?;
            bail!("{} took longer than {} minutes and was ended", name(command), time.as_secs() / 60);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a command and gives back what it printed. An exit code other than 0 is an error with what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", name(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what is done, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = work().with_context(|| what.to_owned())?;
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
