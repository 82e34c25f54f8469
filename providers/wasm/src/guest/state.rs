//! What an instance has: the data of its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use wasmtime::Store;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::memory::{ContainerMemory, InstanceMemory};
use super::meter::{CpuMeter, Metered};
use super::outcome::{Failure, Outcome};
use super::stdio::{ContainerStdio, Notes, Stdio};
use crate::engine::Engine;
use crate::logs::{ContainerLog, Source};
use crate::metrics::CountedInstance;
use crate::network::{GuestNet, GuestNetView, PodNet};

/// Handles that one instance may hold at a time (streams, sockets, files, requests). Stops a guest that opens
/// without end: the host pays for each, and a guest's memory limit does not count that.
const MOST_HANDLES: usize = 20_000;
/// Bytes that one call may move between a guest and the host's memory. Stops guests that hand the host lists which
/// are larger than what it can hold.
const MOST_BYTES_A_CALL: usize = 64 << 20;

/// What all instances of a container have in common.
pub(crate) struct ContainerEnv {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Where components start. Core modules of WASI 0.1 have no way to learn it: their libc starts at `/`.
    pub(crate) working_dir: String,
    pub(crate) files: WasiFilesystemCtx,
    /// What `wasi:config` answers.
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) stdio: ContainerStdio,
    pub(crate) memory: Arc<ContainerMemory>,
    pub(crate) cpu: Arc<CpuMeter>,
    /// Instances that a trap ended.
    pub(crate) traps: AtomicU64,
    pub(crate) net: Arc<PodNet>,
    pub(crate) engine: Arc<Engine>,
    /// The runtime for guests in the pod's network namespace.
    pub(crate) guests: Handle,
    /// The context whose blocking threads wait for its files, if that is not the runtime's own.
    pub(crate) file_context: Option<Handle>,
}

impl ContainerEnv {
    /// A store for a new instance.
    pub(crate) fn store(&self, arguments: &[String], stdio: Stdio) -> Store<GuestState> {
        let mut builder = WasiCtx::builder();
        builder.args(arguments).envs(&self.environment);
        stdio.configure(&mut builder);
        if !self.working_dir.is_empty() {
            builder.initial_cwd(&self.working_dir);
        }
        self.net.configure(&mut builder);
        let mut wasi = builder.build_p1();
        let view = wasi.ctx();
        *view.ctx.filesystem() = self.files.clone();
        view.table.set_max_capacity(MOST_HANDLES);
        let state = GuestState {
            wasi,
            config: self.config.clone(),
            http: WasiHttpCtx::new(),
            net: self.net.guest(),
            memory: InstanceMemory::new(self.memory.clone()),
            log: self.stdio.log().clone(),
            was_refused: false,
            _counted: self.engine.metrics().instance(),
        };
        let mut store = Store::new(self.engine.wasmtime(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(MOST_BYTES_A_CALL);
        store.set_max_component_handles(MOST_HANDLES);
        // At each tick a guest goes to the end of the queue; dropping its future there ends it.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| {
            Ok(wasmtime::UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }

    /// What an error means that ended an instance. Where in the guest it happened goes to `notes`.
    pub(crate) fn failed(&self, error: &wasmtime::Error, notes: &Notes) -> Outcome {
        if error.downcast_ref::<wasmtime::Trap>().is_some() {
            self.traps.fetch_add(1, Ordering::Relaxed);
            self.engine.metrics().trapped();
        }
        let Failure { outcome, trace } = Failure::of(error);
        if let Some(trace) = trace {
            notes.write(&trace);
        }
        outcome
    }

    /// Accounts for a piece of guest work.
    pub(crate) fn metered<F: Future>(&self, work: F) -> Metered<impl Future<Output = F::Output> + use<F>> {
        Metered::new(self.engine.clone(), self.cpu.clone(), in_context(self.file_context.clone(), work))
    }
}

/// Polls work in a runtime's context, if one is given: blocking work that it starts goes to that runtime's threads.
async fn in_context<F: Future>(context: Option<Handle>, work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let _entered = context.as_ref().map(Handle::enter);
        work.as_mut().poll(cx)
    })
    .await
}

/// The data of an instance's store, for all kinds of guests.
pub(crate) struct GuestState {
    /// The tables of WASI 0.1 and 0.2; the former are empty for components.
    wasi: WasiP1Ctx,
    config: Arc<WasiConfigVariables>,
    http: WasiHttpCtx,
    net: GuestNet,
    memory: InstanceMemory,
    log: Arc<ContainerLog>,
    was_refused: bool,
    _counted: CountedInstance,
}

impl GuestState {
    pub(crate) fn wasi_p1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    pub(crate) fn config(&mut self) -> WasiConfig<'_> {
        WasiConfig::new(&self.config)
    }

    /// Says in the container's log why a call cannot do what it is for; once for each instance.
    pub(crate) fn refused(&mut self, why: &str) {
        if !std::mem::replace(&mut self.was_refused, true) {
            self.log.note(Source::Stderr, why);
        }
    }

    pub(crate) fn memory(&self) -> &InstanceMemory {
        &self.memory
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.net, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

impl GuestNetView for GuestState {
    fn guest_net(&mut self) -> &mut GuestNet {
        &mut self.net
    }
}
