//! Real guests in pods.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::Request;
use http_body_util::{BodyExt, Empty};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p3::bindings::Command as CommandP3;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::super::sockets::shadow::trial::leaving_out;
use super::super::{GuestNet, GuestNetView, PodNet, add_p3_to_linker, add_to_linker};
use super::bed::GuestRuntime;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(&Config::new()).unwrap());
/// The guest `sockets`, as it was built.
pub(super) static SOCKETS: LazyLock<Component> =
    LazyLock::new(|| Component::new(&ENGINE, read("sockets")).unwrap());
static SOCKETS_P3: LazyLock<Component> =
    LazyLock::new(|| Component::new(&ENGINE, read("sockets-p3")).unwrap());
static HTTP: LazyLock<Component> = LazyLock::new(|| Component::new(&ENGINE, read("http")).unwrap());

/// A store's data, as the provider has it.
pub(super) struct Guest {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    net: GuestNet,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.net, table: &mut self.table, ctx: &mut self.http }
    }
}

impl GuestNetView for Guest {
    fn guest_net(&mut self) -> &mut GuestNet {
        &mut self.net
    }
}

/// Runs the guest `sockets` in a pod, on the pods' threads or on the node's as it should be, and returns the line that it
/// printed.
pub(super) async fn sockets(guests: &GuestRuntime, pod: &Arc<PodNet>, arguments: &str) -> String {
    let run = run_sockets(&SOCKETS, pod.clone(), arguments.to_owned());
    let result = if pod.needs_pod_threads() { guests.run(run).await } else { run.await };
    result.unwrap_or_else(|error| panic!("{arguments}: {error:?}"))
}

/// Runs a build of the guest `sockets` on the current thread.
pub(super) async fn run_sockets(
    component: &Component,
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    let mut linker = wasi();
    add_to_linker(&mut linker)?;
    run_linked(component, &linker, pod, arguments).await
}

/// Runs the guest `sockets` in a pod with one of the replacements missing.
pub(super) async fn run_sockets_without(
    left_out: &str,
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    let mut linker = wasi();
    leaving_out(Some(left_out), || add_to_linker(&mut linker)).0?;
    run_linked(&SOCKETS, &linker, pod, arguments).await
}

/// Runs the guest `sockets-p3` in a pod with one of the replacements missing.
pub(super) async fn run_sockets_p3_without(
    left_out: &str,
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    let mut linker = wasi_p3();
    leaving_out(Some(left_out), || add_p3_to_linker(&mut linker)).0?;
    run_linked_p3(&linker, pod, arguments).await
}

/// What is replaced in the linkers of WASI 0.2 and of 0.3.
pub(super) fn replaced() -> [Vec<String>; 2] {
    let (mut p2, mut p3) = (wasi(), wasi_p3());
    let (added, in_p2) = leaving_out(None, || add_to_linker(&mut p2));
    added.unwrap();
    let (added, in_p3) = leaving_out(None, || add_p3_to_linker(&mut p3));
    added.unwrap();
    [in_p2, in_p3]
}

/// Runs the guest `sockets` in a pod, but with wasmtime-wasi's own functions.
pub(super) async fn run_sockets_past_the_rewriting(
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    run_linked(&SOCKETS, &wasi(), pod, arguments).await
}

/// Runs the guest `sockets-p3` in a pod, as [`sockets`] does.
pub(super) async fn sockets_p3(guests: &GuestRuntime, pod: &Arc<PodNet>, arguments: &str) -> String {
    let run = run_sockets_p3(pod.clone(), arguments.to_owned());
    let result = if pod.needs_pod_threads() { guests.run(run).await } else { run.await };
    result.unwrap_or_else(|error| panic!("{arguments}: {error:?}"))
}

/// Runs the guest `sockets-p3` on the current thread.
pub(super) async fn run_sockets_p3(pod: Arc<PodNet>, arguments: String) -> wasmtime::Result<String> {
    let mut linker = wasi_p3();
    add_p3_to_linker(&mut linker)?;
    run_linked_p3(&linker, pod, arguments).await
}

/// Runs the guest `sockets-p3` in a pod, but with wasmtime-wasi's own functions.
pub(super) async fn run_sockets_p3_past_the_rewriting(
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    run_linked_p3(&wasi_p3(), pod, arguments).await
}

fn wasi_p3() -> Linker<Guest> {
    let mut linker = wasi();
    wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
    linker
}

async fn run_linked_p3(
    linker: &Linker<Guest>,
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    let output = MemoryOutputPipe::new(4096);
    let mut wasi = WasiCtx::builder();
    wasi.arg("sockets").args(&arguments.split_whitespace().collect::<Vec<_>>()).stdout(output.clone());
    let mut store = store(&pod, &mut wasi);
    let command = CommandP3::instantiate_async(&mut store, &SOCKETS_P3, linker).await?;
    let ended =
        store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await??;
    ended.map_err(|()| wasmtime::format_err!("it failed"))?;
    drop(store);
    Ok(String::from_utf8_lossy(&output.contents()).trim().to_owned())
}

/// All that wasmtime-wasi has.
pub(super) fn wasi() -> Linker<Guest> {
    let mut linker = Linker::new(&ENGINE);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    linker
}

async fn run_linked(
    component: &Component,
    linker: &Linker<Guest>,
    pod: Arc<PodNet>,
    arguments: String,
) -> wasmtime::Result<String> {
    let output = MemoryOutputPipe::new(4096);
    let mut wasi = WasiCtx::builder();
    wasi.arg("sockets").args(&arguments.split_whitespace().collect::<Vec<_>>()).stdout(output.clone());
    let mut store = store(&pod, &mut wasi);
    let command = Command::instantiate_async(&mut store, component, linker).await?;
    command.wasi_cli_run().call_run(&mut store).await?.map_err(|()| wasmtime::format_err!("it failed"))?;
    drop(store);
    Ok(String::from_utf8_lossy(&output.contents()).trim().to_owned())
}

/// Sends the guest `http` a request for a path, and returns the body of its answer.
pub(super) async fn http(guests: &GuestRuntime, pod: &Arc<PodNet>, path: &str) -> String {
    let run = run_http(pod.clone(), path.to_owned());
    let result = if pod.needs_pod_threads() { guests.run(run).await } else { run.await };
    result.unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

async fn run_http(pod: Arc<PodNet>, path: String) -> wasmtime::Result<String> {
    let mut linker = wasi();
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    add_to_linker(&mut linker)?;
    let mut store = store(&pod, &mut WasiCtx::builder());
    let request = Request::get(format!("http://guest.example{path}")).body(Empty::new())?;
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let (sender, response) = tokio::sync::oneshot::channel();
    let outparam = store.data_mut().http().new_response_outparam(sender)?;
    let proxy = Proxy::instantiate_async(&mut store, &HTTP, &linker).await?;
    let handled = tokio::spawn(async move {
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
    });
    let body = response.await??.into_body().collect().await?.to_bytes();
    handled.await??;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn store(pod: &Arc<PodNet>, wasi: &mut WasiCtxBuilder) -> Store<Guest> {
    pod.configure(wasi);
    let guest =
        Guest { table: ResourceTable::new(), wasi: wasi.build(), http: WasiHttpCtx::new(), net: pod.guest() };
    Store::new(&ENGINE, guest)
}

/// The guest `sockets`, importing another version of WASI, of as many characters.
pub(super) fn sockets_for_version(version: &str) -> Component {
    const OWN: &[u8] = b"@0.2.6";
    let mut bytes = read("sockets");
    let places: Vec<_> = (0..bytes.len()).filter(|&start| bytes[start..].starts_with(OWN)).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place + 1..place + OWN.len()].copy_from_slice(version.as_bytes());
    }
    Component::new(&ENGINE, bytes).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    std::fs::read(folder.join(name).with_extension("wasm")).unwrap()
}
