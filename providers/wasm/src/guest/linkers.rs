//! What the host offers to guests.

use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Engine, Linker};
use wasmtime_wasi::I32Exit;

use super::state::GuestState;
use crate::network;

/// The interfaces of all worlds, linked once for all guests.
pub(crate) struct Linkers {
    /// WASI 0.1, for core modules. It has no sockets to speak of.
    pub(crate) modules: Linker<GuestState>,
    /// WASI 0.2 with `wasi:http`, for components: commands and services alike.
    pub(crate) components: ComponentLinker<GuestState>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut modules = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, GuestState::wasi_p1)?;
        modules.allow_shadowing(true);
        // The stock function traps for codes above 125. Linux keeps the lowest eight bits of any code.
        modules.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code & 0xff).into())
        })?;
        modules.allow_shadowing(false);

        let mut components = ComponentLinker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        network::add_to_linker(&mut components)?;
        Ok(Self { modules, components })
    }
}
