//! `wasi:sockets` for guests of pods: a few functions of wasmtime-wasi replaced by ones that put the pod's addresses in
//! place of those that the guest names, and then do what wasmtime-wasi does.
//!
//! Replacing functions is the only way to rewrite addresses: wasmtime-wasi's own hook can refuse, never change. The rest
//! of each interface stays wasmtime-wasi's. What rewriting misses, the check that [`PodNet::configure`] installs refuses.
//!
//! [`PodNet::configure`]: super::PodNet::configure

mod names;
mod p3;
pub(super) mod shadow;
mod tcp;
mod udp;

use std::net::SocketAddr;

use wasmtime::component::Linker;
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpSocketAddress};

use self::shadow::Shadows;
use super::guest::{GuestNet, GuestNetView};
use super::policy::{Destination, Refusal, Transport};

/// The names of the interfaces with wasmtime-wasi's own version of them, which serves guests of any version of 0.2.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP: &str = "wasi:sockets/udp@0.2.12";
const IP_NAME_LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const P3_TYPES: &str = "wasi:sockets/types@0.3.0";
const P3_IP_NAME_LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.3.0";

/// Replaces the socket functions in a linker that has all of wasmtime-wasi's p2 interfaces, and fails if one of them is not
/// what it was made for.
///
/// A store's `WasiCtx` has to be built with [`PodNet::configure`](super::PodNet::configure) of the same pod.
pub fn add_to_linker<T: GuestNetView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    tcp::add(Shadows::new(linker, TCP))?;
    udp::add(Shadows::new(linker, UDP))?;
    names::add(Shadows::new(linker, IP_NAME_LOOKUP))
}

/// As [`add_to_linker`], in a linker that has wasmtime-wasi's p3 interfaces.
pub fn add_p3_to_linker<T: GuestNetView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut types = Shadows::new(linker, P3_TYPES);
    p3::add_tcp(&mut types)?;
    p3::add_udp(&mut types)?;
    drop(types);
    p3::add_names(&mut Shadows::new(linker, P3_IP_NAME_LOOKUP))
}

/// A result as a guest gets it: traps end the guest, errors are values.
fn lowered<T>(result: Result<T, SocketError>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// Where a guest's packet to `wanted` really goes, and by which way.
struct Route {
    destination: Destination,
    target: SocketAddr,
}

/// Why a socket does not do what a guest wants.
enum Denied {
    /// The pod's policy.
    Refused(Refusal),
    /// The guest runs outside its network. It traps, before it makes a socket there.
    WrongThread(wasmtime::Error),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Denied> for SocketError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(Refusal::NotBindable) => ErrorCode::AddressNotBindable.into(),
            Denied::Refused(Refusal::Prohibited) => ErrorCode::AccessDenied.into(),
            Denied::Refused(Refusal::Unreachable) => ErrorCode::RemoteUnreachable.into(),
            Denied::Refused(Refusal::Refused) => ErrorCode::ConnectionRefused.into(),
            Denied::WrongThread(error) => Self::trap(error),
        }
    }
}

/// Decides about a packet to an address.
fn route(guest: &GuestNet, wanted: SocketAddr, transport: Transport) -> Result<Route, Denied> {
    let net = guest.pod();
    ensure_right_thread(guest)?;
    let destination = net.destination(wanted)?;
    let target = net.target(destination, transport)?;
    Ok(Route { destination, target })
}

/// The address that a guest's socket is bound to when it asks for `wanted`.
fn bind_address(guest: &GuestNet, wanted: SocketAddr, transport: Transport) -> Result<SocketAddr, Denied> {
    ensure_right_thread(guest)?;
    Ok(guest.pod().place.bind(wanted, transport)?)
}

fn ensure_right_thread(guest: &GuestNet) -> Result<(), Denied> {
    let net = guest.pod();
    if net.is_right_thread() {
        return Ok(());
    }
    Err(Denied::WrongThread(wasmtime::format_err!(
        "a guest of {net} uses a socket on a thread outside its network"
    )))
}

/// The address as the guest knows it.
fn as_seen_by_guest(guest: &GuestNet, address: IpSocketAddress) -> IpSocketAddress {
    guest.pod().place.as_seen_by_guest(address.into()).into()
}
