//! The peer of guests in pods: wasmtime's own command line, of the same version.

use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use coracle_tests::process::{self, Process};
use coracle_tests::scratch::Scratch;
use coracle_tests::wait::Deadline;
use coracle_tests::{guests, network, programs};

/// What Coracle has, too: instances from a pool, and a clock that interrupts guests, which costs those that compute and is
/// off there without a time limit.
const SETTINGS: &[&str] = &["-O", "pooling-allocator=y", "-W", "timeout=600s"];

/// A guest under wasmtime. Dropping it ends it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    _process: Process,
    _scratch: Scratch,
}

impl Peer {
    /// A service, each of whose instances answers so many requests.
    pub(crate) fn serve(guest: &str, reuse: usize) -> Result<Self> {
        Self::start(guest, |address| {
            let words = ["serve", "-S", "cli", "-W", "component-model-async=y", "--no-logging-prefix"];
            let mut before: Vec<String> = words.map(str::to_owned).to_vec();
            before.extend(["--addr".to_owned(), address.to_string()]);
            before.extend(["--max-instance-reuse-count".to_owned(), reuse.to_string()]);
            (before, Vec::new())
        })
    }

    /// A command that listens on the address that follows its arguments.
    pub(crate) fn run(guest: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(guest, |address| {
            let mut after: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
            after.push(address.to_string());
            (["run", "-S", "inherit-network=y"].map(str::to_owned).to_vec(), after)
        })
    }

    /// Starts it with what stands before the guest's file on its command line, and after it.
    fn start(guest: &str, words: impl Fn(SocketAddr) -> (Vec<String>, Vec<String>)) -> Result<Self> {
        let scratch = Scratch::new("wasmtime")?;
        let file = scratch.write("guest.wasm", guests::bytes(guest)?)?;
        let address = SocketAddr::from(([127, 0, 0, 1], network::free_port()?));
        let (before, after) = words(address);
        let mut command = process::tethered(programs::bed("wasmtime")?);
        command.args(before).args(SETTINGS).arg(file).args(after);
        let mut process = Process::start("wasmtime", command, &scratch.join("wasmtime.log"))?;
        process.await_ready(Deadline::seconds(60), || TcpStream::connect(address).is_ok())?;
        Ok(Self { address, _process: process, _scratch: scratch })
    }
}
