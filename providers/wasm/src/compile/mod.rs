//! From WebAssembly to native code: once a digest, in a process of its own, kept on disk.

mod cache;
mod child;
mod confine;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use self::cache::{Cache, Pending};
pub use self::child::compile_child;
pub(crate) use self::child::one_line;

/// How many modules are compiled at the same time. One compilation keeps several threads busy by itself.
const PARALLEL: usize = 2;
/// How much of what a compile child says is kept.
const LONGEST_COMPLAINT: u64 = 8 << 10;

/// The program that compiles: one that calls [`compile_child`] first thing, given these arguments.
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    /// The program. `/proc/self/exe` is the running one, even after its file was replaced.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// What compiling one module may cost.
#[derive(Clone, Debug)]
pub struct CompileLimits {
    /// Address space of the process, in bytes. Stops modules that are made to take up the node's memory.
    pub memory_bytes: u64,
    /// Processor time of the process. Stops modules that are made to compile for hours.
    pub cpu: Duration,
    /// Time until the process is killed, however little it computes.
    pub wall: Duration,
    /// Bytes of native code. Stops small modules that are made to fill the disk.
    pub output_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 8 << 30,
            cpu: Duration::from_secs(600),
            wall: Duration::from_secs(600),
            output_bytes: 1 << 30,
        }
    }
}

/// Why there is no native code for a module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The input is at fault: compiling it again gives the same answer.
    #[error("cannot run {digest}: {reason}")]
    Refused {
        /// Which input.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Compiling takes more than it may.
    #[error("compiling {digest} {reason}")]
    TooExpensive {
        /// Which input.
        digest: String,
        /// Which limit it ran into.
        reason: String,
    },
    /// The compiler did not work.
    #[error("the compiler failed on {digest}: {reason}")]
    Failed {
        /// Which input.
        digest: String,
        /// What happened.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} for {digest}: {source}")]
    Io {
        /// Which input.
        digest: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Native code, mapped.
#[derive(Clone)]
pub(crate) enum Code {
    /// Of a core module.
    Module(Module),
    /// Of a component.
    Component(Component),
}

/// Compiles modules, and loads what it compiled.
#[derive(Debug)]
pub(crate) struct Compiler {
    command: CompilerCommand,
    limits: CompileLimits,
    cache: Cache,
    slots: Semaphore,
}

impl Compiler {
    /// Keeps its code in `folder`, which nobody else may write to. `compatibility` names the engine.
    pub(crate) fn open(
        folder: PathBuf,
        compatibility: String,
        command: CompilerCommand,
        limits: CompileLimits,
    ) -> io::Result<Self> {
        let cache = Cache::open(folder, compatibility)?;
        Ok(Self { command, limits, cache, slots: Semaphore::new(PARALLEL) })
    }

    /// Makes sure that there is code for `digest`, whose WebAssembly lies at `wasm`.
    ///
    /// Dropping the call kills the compiler. Call it on a thread of the node's own namespaces: children inherit them.
    pub(crate) async fn compile(&self, digest: &str, wasm: &Path) -> Result<(), CompileError> {
        if self.cache.bytes(digest) > 0 {
            return Ok(());
        }
        let slot = self.slots.acquire().await.map_err(|e| failed(digest, e))?;
        let started = tokio::time::Instant::now();
        let input = File::open(wasm).map_err(io_error(digest, "read the module"))?;
        let mut pending = self.cache.begin().map_err(io_error(digest, "store native code"))?;
        let mut child = self.spawn(input).map_err(io_error(digest, "start the compiler"))?;
        let work = self.supervise(&mut child, &mut pending, digest);
        let Ok(finished) = tokio::time::timeout(self.limits.wall, work).await else {
            return Err(CompileError::TooExpensive {
                digest: digest.into(),
                reason: format!("took longer than {:?}", self.limits.wall),
            });
        };
        finished?;
        let bytes = pending.bytes();
        self.cache.commit(pending, digest).map_err(io_error(digest, "store native code"))?;
        tracing::info!(digest, bytes, elapsed = ?started.elapsed(), "compiled");
        drop(slot);
        Ok(())
    }

    fn spawn(&self, input: File) -> io::Result<Child> {
        Command::new(&self.command.program)
            .args(&self.command.args)
            .env_clear()
            .env(child::MEMORY_VARIABLE, self.limits.memory_bytes.to_string())
            .env(child::CPU_VARIABLE, self.limits.cpu.as_secs().max(1).to_string())
            .current_dir("/")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    async fn supervise(
        &self,
        child: &mut Child,
        pending: &mut Pending,
        digest: &str,
    ) -> Result<(), CompileError> {
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(digest, "its output is not connected"));
        };
        let (received, complaint) = tokio::join!(self.receive(stdout, pending, digest), complaint(stderr));
        received?;
        let status = child.wait().await.map_err(io_error(digest, "wait for the compiler"))?;
        judge(status, complaint, digest)
    }

    async fn receive(
        &self,
        mut stdout: impl AsyncRead + Unpin,
        pending: &mut Pending,
        digest: &str,
    ) -> Result<(), CompileError> {
        let mut chunk = vec![0; 128 << 10];
        loop {
            let n = stdout.read(&mut chunk).await.map_err(io_error(digest, "receive native code"))?;
            if n == 0 {
                return Ok(());
            }
            if pending.bytes() + n as u64 > self.limits.output_bytes {
                return Err(CompileError::TooExpensive {
                    digest: digest.into(),
                    reason: format!("gives more than {} bytes of native code", self.limits.output_bytes),
                });
            }
            pending.write(&chunk[..n]).map_err(io_error(digest, "store native code"))?;
        }
    }

    /// Maps the code for `digest`. `None` if there is none that can be trusted: it has to be compiled.
    ///
    /// Reads the file to its end, so it belongs on a thread that may block.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Result<Option<Code>, CompileError> {
        let Some(file) = self.cache.get(digest).map_err(io_error(digest, "read native code"))? else {
            return Ok(None);
        };
        match map(engine, &file) {
            Ok(code) => Ok(Some(code)),
            Err(error) => {
                tracing::warn!(
                    digest,
                    error = one_line(&error),
                    "compiled code does not load and will be compiled again"
                );
                self.cache.remove(digest).map_err(io_error(digest, "remove native code"))?;
                Ok(None)
            }
        }
    }

    /// Bytes of native code on disk for `digest`; 0 if nothing is compiled.
    pub(crate) fn compiled_bytes(&self, digest: &str) -> u64 {
        self.cache.bytes(digest)
    }

    /// Removes all code but that for `digests`.
    pub(crate) fn retain(&self, digests: &HashSet<String>) -> io::Result<()> {
        self.cache.retain(digests)
    }

    /// Removes the code for `digest`. What runs goes on.
    pub(crate) fn forget(&self, digest: &str) -> io::Result<()> {
        self.cache.remove(digest)
    }
}

#[allow(unsafe_code)]
fn map(engine: &Engine, file: &File) -> wasmtime::Result<Code> {
    // By descriptor: the name in the cache may lead to another file by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the file came out of the cache: this program's own compile child wrote it, its checksum is that of
    // the bytes that the child sent, and files of the cache are only ever renamed and unlinked.
    unsafe {
        match Engine::detect_precompiled_file(&path)? {
            Some(Precompiled::Module) => Module::deserialize_file(engine, path).map(Code::Module),
            Some(Precompiled::Component) => Component::deserialize_file(engine, path).map(Code::Component),
            None => Err(wasmtime::format_err!("it is not compiled WebAssembly")),
        }
    }
}

/// The last words of a child, without reading forever.
async fn complaint(stderr: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not known: the exit status still tells.
    let _ = stderr.take(LONGEST_COMPLAINT).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn judge(status: ExitStatus, complaint: String, digest: &str) -> Result<(), CompileError> {
    let digest = digest.to_owned();
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(child::REFUSED) => {
            Err(CompileError::Refused { digest, reason: complaint })
        }
        // SIGXCPU comes first, SIGKILL a second later.
        (_, Some(signal)) if signal == libc_signal::XCPU || signal == libc_signal::KILL => {
            Err(CompileError::TooExpensive {
                digest,
                reason: "takes too much processor time or memory".into(),
            })
        }
        // An allocation that fails aborts the process.
        (_, Some(signal)) if signal == libc_signal::ABRT => {
            Err(CompileError::TooExpensive { digest, reason: format!("takes too much memory: {complaint}") })
        }
        _ => Err(CompileError::Failed { digest, reason: format!("{status}: {complaint}") }),
    }
}

/// Signal numbers that mean something here.
mod libc_signal {
    use rustix::process::Signal;

    pub(super) const XCPU: i32 = Signal::XCPU.as_raw();
    pub(super) const KILL: i32 = Signal::KILL.as_raw();
    pub(super) const ABRT: i32 = Signal::ABORT.as_raw();
}

fn failed(digest: &str, reason: impl std::fmt::Display) -> CompileError {
    CompileError::Failed { digest: digest.into(), reason: reason.to_string() }
}

fn io_error(digest: &str, action: &'static str) -> impl FnOnce(io::Error) -> CompileError {
    let digest = digest.to_owned();
    move |source| CompileError::Io { digest, action, source }
}

#[cfg(test)]
mod tests;
