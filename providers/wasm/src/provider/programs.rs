//! The programs that are mapped: each once, however many containers run it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use coracle_provider::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::single_flight::SingleFlight;
use super::spawner::Spawner;
use crate::compile::{Code, CompileError, Compiler};
use crate::engine::Engine;
use crate::guest::{Linkers, Program};
use crate::image::{Prepare, WasmBlob};

/// Programs that stay mapped although no container runs them, so that a job that starts again finds its program.
const KEPT: usize = 16;

/// Programs by the digest of their WebAssembly.
pub(super) struct Programs {
    engine: Arc<Engine>,
    linkers: Linkers,
    compiler: Compiler,
    spawner: Spawner,
    mapped: Mutex<Mapped>,
    flights: SingleFlight<String, Arc<Program>>,
}

#[derive(Default)]
struct Mapped {
    programs: HashMap<String, Weak<Program>>,
    /// The last ones that were asked for, the latest in front.
    kept: VecDeque<Arc<Program>>,
}

impl Programs {
    pub(super) fn new(
        engine: Arc<Engine>,
        compiler: Compiler,
        spawner: Spawner,
    ) -> wasmtime::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            linkers: Linkers::new(engine.wasmtime())?,
            engine,
            compiler,
            spawner,
            mapped: Mutex::default(),
            flights: SingleFlight::default(),
        }))
    }

    /// The program of a binary. Maps it if it is not mapped, and compiles it if that was never done or is lost; the
    /// mapping is done on a blocking thread of `files`.
    pub(super) async fn get(self: &Arc<Self>, wasm: &WasmBlob, files: &Handle) -> Result<Arc<Program>> {
        if let Some(program) = self.mapped.lock().get(&wasm.digest) {
            self.engine.metrics().code_requested(true);
            return Ok(program);
        }
        let (this, wasm, files) = (self.clone(), wasm.clone(), files.clone());
        self.flights
            .run(&self.spawner, wasm.digest.clone(), async move { this.load(wasm, files).await })
            .await
    }

    async fn load(self: Arc<Self>, wasm: WasmBlob, files: Handle) -> Result<Arc<Program>> {
        let code = match self.map(&wasm, &files).await? {
            Some(code) => {
                self.engine.metrics().code_requested(true);
                code
            }
            None => {
                self.prepare(&wasm).await?;
                self.map(&wasm, &files).await?.ok_or_else(|| {
                    Error::internal(format!(
                        "native code for {} is damaged as soon as it is written",
                        wasm.digest
                    ))
                })?
            }
        };
        let program = Program::link(self.engine.wasmtime(), &self.linkers, &code)
            .map(Arc::new)
            .map_err(|error| Error::invalid(error.to_string()))?;
        self.mapped.lock().put(wasm.digest, &program);
        Ok(program)
    }

    async fn map(self: &Arc<Self>, wasm: &WasmBlob, files: &Handle) -> Result<Option<Code>> {
        let (this, digest) = (self.clone(), wasm.digest.clone());
        files
            .spawn_blocking(move || this.compiler.load(this.engine.wasmtime(), &digest))
            .await
            .map_err(|error| Error::internal(format!("cannot map native code: {error}")))?
            .map_err(compile_error)
    }
}

impl Mapped {
    fn get(&mut self, digest: &str) -> Option<Arc<Program>> {
        let program = self.programs.get(digest)?.upgrade()?;
        self.keep(&program);
        Some(program)
    }

    fn put(&mut self, digest: String, program: &Arc<Program>) {
        self.programs.retain(|_, program| program.strong_count() > 0);
        self.programs.insert(digest, Arc::downgrade(program));
        self.keep(program);
    }

    fn keep(&mut self, program: &Arc<Program>) {
        self.kept.retain(|kept| !Arc::ptr_eq(kept, program));
        self.kept.push_front(program.clone());
        self.kept.truncate(KEPT);
    }

    fn forget(&mut self, digest: &str) {
        if let Some(program) = self.programs.remove(digest).and_then(|program| program.upgrade()) {
            self.kept.retain(|kept| !Arc::ptr_eq(kept, &program));
        }
    }
}

#[async_trait]
impl Prepare for Programs {
    async fn prepare(&self, wasm: &WasmBlob) -> Result<()> {
        let metrics = self.engine.metrics();
        let is_there = self.compiler.compiled_bytes(&wasm.digest) > 0;
        metrics.code_requested(is_there);
        let started = Instant::now();
        let compiled = self.compiler.compile(&wasm.digest, &wasm.path).await;
        if !is_there {
            metrics.compiled(started.elapsed(), compiled.is_ok());
        }
        compiled.map_err(compile_error)
    }

    fn prepared_bytes(&self, digest: &str) -> u64 {
        self.compiler.compiled_bytes(digest)
    }

    fn forget(&self, digest: &str) {
        self.mapped.lock().forget(digest);
        if let Err(error) = self.compiler.forget(digest) {
            tracing::warn!(digest, %error, "cannot remove native code");
        }
    }

    fn retain(&self, digests: &HashSet<String>) {
        if let Err(error) = self.compiler.retain(digests) {
            tracing::warn!(%error, "cannot remove native code that nobody needs");
        }
    }
}

fn compile_error(error: CompileError) -> Error {
    let kind = match &error {
        CompileError::Refused { .. } | CompileError::TooExpensive { .. } => ErrorKind::ImageUnusable,
        CompileError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            ErrorKind::ResourceExhausted
        }
        CompileError::Failed { .. } | CompileError::Io { .. } => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}
