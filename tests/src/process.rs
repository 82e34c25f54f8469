//! Processes that never outlive the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{self, Deadline};

/// A command that is killed when this process ends, even by kill -9. Start it with [`spawn`].
pub fn tethered(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    // Ctrl-C is for the one who started the bed, who then ends it in order.
    command.process_group(0);
    command
}

/// Starts a command from a thread that lives as long as this process: the kernel's tether hangs on the thread that
/// forked, and a test's own thread may end before the process.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (sender, answer) = mpsc::channel();
    SPAWNER.send((command, sender)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// A server in the background. Dropping it ends it: at once, or after [`Process::grace`].
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// How long it may take to end by itself when it is dropped. Zero: it is killed.
    pub grace: Duration,
}

impl Process {
    /// Starts a command; what it prints is appended to a file.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).context("cannot open a log")?;
        command.stdout(file.try_clone().context("cannot open a log")?).stderr(file);
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf(), grace: Duration::ZERO })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for something that this process brings about; fails at once, with the end of its log, if the process
    /// ends first.
    pub fn await_ready(&mut self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> Result<()> {
        let name = self.name.clone();
        let result = wait::eventually(&format!("{name} is ready"), deadline, || {
            Ok(match self.ended() {
                Some(status) => Some(status),
                None if ready() => None,
                None => bail!("not yet"),
            })
        });
        match result {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{name} ended with {status}:\n{}", self.log_tail()),
            Err(error) => Err(error.context(self.log_tail())),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("cannot kill {}", self.name))?;
        Ok(())
    }

    /// Sends a signal and waits for the end.
    pub fn end_with(&mut self, signal: Signal, deadline: Deadline) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(signal)?;
        let name = self.name.clone();
        wait::eventually(&format!("{name} ends"), deadline, || self.ended().context("it still runs"))
    }

    /// All that it printed.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// The last lines that it printed.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 60;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- {} ---\n{}", self.log.display(), lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.grace.is_zero() || self.end_with(Signal::TERM, Deadline::after(self.grace)).is_err() {
            let _ = self.kill();
        }
    }
}

/// What a command that ran to its end has left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; None if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs a command to its end, with this on its standard input. It is killed, and an error with what it printed so far,
/// if that takes too long.
pub fn finish(mut command: Command, input: Option<&[u8]>, deadline: Deadline) -> Result<Finished> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let mut child = spawn(command).with_context(|| format!("cannot start {name}"))?;
    let pipe = child.stdin.take();
    let input = input.unwrap_or_default().to_vec();
    let feeder = thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(&input)));
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait::eventually(&name, deadline, || child.try_wait()?.context("it still runs"));
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    // A program need not read its input.
    let _ = feeder.join();
    let text =
        |thread: Option<thread::JoinHandle<String>>| thread.and_then(|it| it.join().ok()).unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Ok(status) => Ok(Finished { code: status.code(), stdout, stderr }),
        Err(error) => Err(error.context(format!("stdout: {stdout}\nstderr: {stderr}"))),
    }
}

fn collect(mut pipe: impl io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
