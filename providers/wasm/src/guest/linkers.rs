//! What the host offers to guests.

use wasmtime::component::Linker as ComponentLinker;
use wasmtime::{Caller, Engine, Linker};
use wasmtime_wasi::{I32Exit, p1, p2, p3};

use super::state::GuestState;
use crate::network;

/// What is offered, for messages to those who need something else.
pub(super) const OFFERED: &str =
    "WASI 0.1 without sockets, WASI 0.2 and 0.3, wasi:http 0.2 and 0.3, and wasi:config 0.2.0-rc.1";

/// The interfaces of all worlds, linked once for all guests.
pub(crate) struct Linkers {
    /// WASI 0.1, for core modules.
    pub(crate) modules: Linker<GuestState>,
    /// WASI 0.2 and 0.3 with `wasi:http` and `wasi:config`, for components: commands and services alike.
    pub(crate) components: ComponentLinker<GuestState>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut modules = Linker::new(engine);
        p1::add_to_linker_async(&mut modules, GuestState::wasi_p1)?;
        modules.allow_shadowing(true);
        // The stock function traps for codes above 125. Linux keeps the lowest eight bits of any code.
        modules.func_wrap(P1, "proc_exit", |code: i32| -> wasmtime::Result<()> {
            Err(I32Exit(code & 0xff).into())
        })?;
        refuse_p1_sockets(&mut modules)?;
        modules.allow_shadowing(false);

        let mut components = ComponentLinker::new(engine);
        p2::add_to_linker_async(&mut components)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        network::add_to_linker(&mut components)?;
        p3::add_to_linker(&mut components)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut components)?;
        network::add_p3_to_linker(&mut components)?;
        wasmtime_wasi_config::add_to_linker(&mut components, GuestState::config)?;
        Ok(Self { modules, components })
    }
}

const P1: &str = "wasi_snapshot_preview1";
/// `errno::notsup` of WASI 0.1.
const NOT_SUPPORTED: i32 = 58;

/// WASI 0.1 has functions for sockets and no way to get one. Some toolchains import them for every program, so it is
/// their use that is refused.
fn refuse_p1_sockets(modules: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fn refuse(mut caller: Caller<'_, GuestState>, function: &str) -> i32 {
        caller.data_mut().refused(&format!(
            "{P1}::{function} was called: there are no sockets in WASI 0.1; build the program for WASI 0.2 (wasm32-wasip2)"
        ));
        NOT_SUPPORTED
    }
    modules.func_wrap(P1, "sock_accept", |c: Caller<'_, GuestState>, _: i32, _: i32, _: i32| {
        refuse(c, "sock_accept")
    })?;
    modules.func_wrap(
        P1,
        "sock_recv",
        |c: Caller<'_, GuestState>, _: i32, _: i32, _: i32, _: i32, _: i32, _: i32| refuse(c, "sock_recv"),
    )?;
    modules.func_wrap(
        P1,
        "sock_send",
        |c: Caller<'_, GuestState>, _: i32, _: i32, _: i32, _: i32, _: i32| refuse(c, "sock_send"),
    )?;
    modules.func_wrap(P1, "sock_shutdown", |c: Caller<'_, GuestState>, _: i32, _: i32| {
        refuse(c, "sock_shutdown")
    })?;
    Ok(())
}
