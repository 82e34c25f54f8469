//! `wasi:sockets` 0.3: the functions that take or give addresses.
//!
//! Sockets that guests did not bind are bound here before they listen, connect or send: what the kernel would choose is no
//! address of the pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{Access, Accessor, Resource, ResourceType, StreamReader};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::ErrorCode as LookupErrorCode;
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddress,
    IpAddressFamily, IpSocketAddress, TcpSocket, UdpSocket,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::shadow::Shadows;
use super::{Denied, bind_address, ensure_right_thread, route};
use crate::network::guest::GuestNetView;
use crate::network::names::LookupError;
use crate::network::policy::{Refusal, Transport};

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

/// A result as a guest gets it: traps end the guest, errors are values.
fn lowered<T>(result: SocketResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

pub(super) fn add_tcp<T: GuestNetView + 'static>(shadows: &mut Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.resource("tcp-socket", ResourceType::host::<TcpSocket>(), |mut store, handle| {
        let data = store.data_mut();
        data.guest_net().forget_bound(Transport::Tcp, handle);
        HostTcpSocket::drop(&mut data.sockets(), Resource::new_own(handle))
    })?;
    shadows.func_wrap_async(
        "[method]tcp-socket.bind",
        |mut store: StoreContextMut<'_, T>, (socket, wanted): (Resource<TcpSocket>, IpSocketAddress)| {
            Box::new(async move { lowered(bind_tcp(store.data_mut(), socket.rep(), wanted.into())) })
        },
    )?;
    shadows.func_wrap_concurrent(
        "[method]tcp-socket.connect",
        |accessor: &Accessor<T>, (socket, wanted): (Resource<TcpSocket>, IpSocketAddress)| {
            Box::pin(async move { lowered(connect_tcp(accessor, socket, wanted.into()).await) })
        },
    )?;
    shadows.func_wrap_async(
        "[method]tcp-socket.listen",
        |store: StoreContextMut<'_, T>, (socket,): (Resource<TcpSocket>,)| {
            Box::new(async move { lowered(listen(store, socket).await) })
        },
    )?;
    shadows.func_wrap(
        "[method]tcp-socket.get-local-address",
        |mut store, (socket,): (Resource<TcpSocket>,)| {
            let data = store.data_mut();
            let address = HostTcpSocket::get_local_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data, address)))
        },
    )?;
    shadows.func_wrap(
        "[method]tcp-socket.get-remote-address",
        |mut store, (socket,): (Resource<TcpSocket>,)| {
            let data = store.data_mut();
            let address = HostTcpSocket::get_remote_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data, address)))
        },
    )
}

fn local_tcp<T: GuestNetView>(data: &mut T, socket: u32) -> SocketResult<SocketAddr> {
    let address = HostTcpSocket::get_local_address(&mut data.sockets(), Resource::new_borrow(socket))?;
    Ok(address.into())
}

fn bind_tcp<T: GuestNetView>(data: &mut T, socket: u32, wanted: SocketAddr) -> SocketResult<()> {
    let address = bind_address(data.guest_net(), wanted, Transport::Tcp)?;
    bind_tcp_to(data, socket, address)?;
    // The port may have been the kernel's choice.
    let bound = local_tcp(data, socket)?;
    data.guest_net().note_bound(Transport::Tcp, socket, bound);
    Ok(())
}

fn bind_tcp_to<T: GuestNetView>(data: &mut T, socket: u32, address: SocketAddr) -> SocketResult<()> {
    at_once(HostTcpSocket::bind(&mut data.sockets(), Resource::new_borrow(socket), address.into()))
}

/// What is asynchronous only for the check of addresses, and the pods' check answers at once.
fn at_once<R>(work: impl Future<Output = SocketResult<R>>) -> SocketResult<R> {
    let waits = || Err(SocketError::trap(wasmtime::format_err!("a socket's address is still being checked")));
    work.now_or_never().unwrap_or_else(waits)
}

async fn connect_tcp<T: GuestNetView + 'static>(
    accessor: &Accessor<T>,
    socket: Resource<TcpSocket>,
    wanted: SocketAddr,
) -> SocketResult<()> {
    let target = accessor.with(|mut access| -> SocketResult<SocketAddr> {
        let data = access.data_mut();
        let route = route(data.guest_net(), wanted, Transport::Tcp)?;
        match local_tcp(data, socket.rep()) {
            Ok(local) => {
                if !data.guest_net().pod().place.may_leave_from(local.ip(), route.destination) {
                    return Err(ErrorCode::RemoteUnreachable.into());
                }
            }
            // Not bound, or in a state in which connecting finds what is wrong.
            Err(_) => {
                if let Some(source) = data.guest_net().pod().source(route.destination) {
                    bind_tcp_to(data, socket.rep(), source)?;
                }
            }
        }
        Ok(route.target)
    })?;
    let sockets = accessor.with_getter::<WasiSockets>(T::sockets);
    HostTcpSocketWithStore::connect(&sockets, socket, target.into()).await
}

async fn listen<T: GuestNetView + 'static>(
    mut store: StoreContextMut<'_, T>,
    socket: Resource<TcpSocket>,
) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
    let data = store.data_mut();
    ensure_right_thread(data.guest_net())?;
    if local_tcp(data, socket.rep()).is_err() {
        let family =
            HostTcpSocket::get_address_family(&mut data.sockets(), Resource::new_borrow(socket.rep()));
        bind_tcp(data, socket.rep(), unspecified(family.map_err(SocketError::trap)?))?;
    }
    let access = Access::<'_, T, WasiSockets>::new(store, T::sockets);
    HostTcpSocketWithStore::listen(access, socket).await
}

fn unspecified(family: IpAddressFamily) -> SocketAddr {
    let ip: IpAddr = match family {
        IpAddressFamily::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        IpAddressFamily::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// The address as the guest knows it.
fn as_seen_by_guest<T: GuestNetView>(data: &mut T, address: IpSocketAddress) -> IpSocketAddress {
    data.guest_net().pod().place.as_seen_by_guest(address.into()).into()
}

pub(super) fn add_udp<T: GuestNetView + 'static>(shadows: &mut Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store, handle| {
        let data = store.data_mut();
        data.guest_net().forget_bound(Transport::Udp, handle);
        HostUdpSocket::drop(&mut data.sockets(), Resource::new_own(handle))
    })?;
    shadows.func_wrap_async(
        "[method]udp-socket.bind",
        |mut store: StoreContextMut<'_, T>, (socket, wanted): (Resource<UdpSocket>, IpSocketAddress)| {
            Box::new(async move { lowered(bind_udp(store.data_mut(), socket.rep(), wanted.into())) })
        },
    )?;
    shadows.func_wrap_async(
        "[method]udp-socket.connect",
        |mut store: StoreContextMut<'_, T>, (socket, wanted): (Resource<UdpSocket>, IpSocketAddress)| {
            Box::new(async move { lowered(connect_udp(store.data_mut(), socket, wanted.into()).await) })
        },
    )?;
    shadows.func_wrap_concurrent(
        "[method]udp-socket.send",
        |accessor: &Accessor<T>,
         (socket, datagram, wanted): (Resource<UdpSocket>, Vec<u8>, Option<IpSocketAddress>)| {
            Box::pin(async move { lowered(send(accessor, socket, datagram, wanted).await) })
        },
    )?;
    shadows.func_wrap_concurrent(
        "[method]udp-socket.receive",
        |accessor: &Accessor<T>, (socket,): (Resource<UdpSocket>,)| {
            Box::pin(async move { lowered(receive(accessor, socket).await) })
        },
    )?;
    shadows.func_wrap(
        "[method]udp-socket.get-local-address",
        |mut store, (socket,): (Resource<UdpSocket>,)| {
            let data = store.data_mut();
            let address = HostUdpSocket::get_local_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data, address)))
        },
    )?;
    shadows.func_wrap(
        "[method]udp-socket.get-remote-address",
        |mut store, (socket,): (Resource<UdpSocket>,)| {
            let data = store.data_mut();
            let address = HostUdpSocket::get_remote_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data, address)))
        },
    )
}

fn local_udp<T: GuestNetView>(data: &mut T, socket: u32) -> SocketResult<SocketAddr> {
    let address = HostUdpSocket::get_local_address(&mut data.sockets(), Resource::new_borrow(socket))?;
    Ok(address.into())
}

fn bind_udp<T: GuestNetView>(data: &mut T, socket: u32, wanted: SocketAddr) -> SocketResult<()> {
    let address = bind_address(data.guest_net(), wanted, Transport::Udp)?;
    at_once(HostUdpSocket::bind(&mut data.sockets(), Resource::new_borrow(socket), address.into()))?;
    let bound = local_udp(data, socket)?;
    data.guest_net().note_bound(Transport::Udp, socket, bound);
    Ok(())
}

/// Where a datagram of a socket really goes. Binds the socket if it is not bound.
fn route_udp<T: GuestNetView>(data: &mut T, socket: u32, wanted: SocketAddr) -> SocketResult<SocketAddr> {
    let route = route(data.guest_net(), wanted, Transport::Udp)?;
    if local_udp(data, socket).is_err() {
        let any = match wanted {
            SocketAddr::V4(_) => IpAddressFamily::Ipv4,
            SocketAddr::V6(_) => IpAddressFamily::Ipv6,
        };
        bind_udp(data, socket, unspecified(any))?;
    }
    let local = local_udp(data, socket)?;
    if !data.guest_net().pod().place.may_leave_from(local.ip(), route.destination) {
        return Err(ErrorCode::RemoteUnreachable.into());
    }
    Ok(route.target)
}

async fn connect_udp<T: GuestNetView>(
    data: &mut T,
    socket: Resource<UdpSocket>,
    wanted: SocketAddr,
) -> SocketResult<()> {
    let target = route_udp(data, socket.rep(), wanted)?;
    HostUdpSocket::connect(&mut data.sockets(), socket, target.into()).await
}

async fn send<T: GuestNetView + 'static>(
    accessor: &Accessor<T>,
    socket: Resource<UdpSocket>,
    datagram: Vec<u8>,
    wanted: Option<IpSocketAddress>,
) -> SocketResult<()> {
    let target = accessor.with(|mut access| -> SocketResult<_> {
        let data = access.data_mut();
        ensure_right_thread(data.guest_net())?;
        // Without an address of its own it goes to the one that the socket is connected to, which was checked then.
        wanted.map(|wanted| route_udp(data, socket.rep(), wanted.into())).transpose()
    })?;
    let sockets = accessor.with_getter::<WasiSockets>(T::sockets);
    HostUdpSocketWithStore::send(&sockets, socket, datagram, target.map(IpSocketAddress::from)).await
}

async fn receive<T: GuestNetView + 'static>(
    accessor: &Accessor<T>,
    socket: Resource<UdpSocket>,
) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
    let sockets = accessor.with_getter::<WasiSockets>(T::sockets);
    let (datagram, peer) = HostUdpSocketWithStore::receive(&sockets, socket).await?;
    let peer = accessor.with(|mut access| as_seen_by_guest(access.data_mut(), peer));
    Ok((datagram, peer))
}

pub(super) fn add_names<T: GuestNetView + 'static>(shadows: &mut Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.func_wrap_concurrent("resolve-addresses", |accessor: &Accessor<T>, (name,): (String,)| {
        Box::pin(async move { Ok((resolve(accessor, &name).await?,)) })
    })
}

async fn resolve<T: GuestNetView + 'static>(
    accessor: &Accessor<T>,
    name: &str,
) -> wasmtime::Result<Result<Vec<IpAddress>, LookupErrorCode>> {
    let net = accessor.with(|mut access| {
        let guest = access.data_mut().guest_net();
        ensure_right_thread(guest).map(|()| Arc::clone(guest.pod()))
    });
    let net = match net {
        Ok(net) => net,
        Err(Denied::WrongThread(error)) => return Err(error),
        Err(Denied::Refused(_)) => return Ok(Err(LookupErrorCode::AccessDenied)),
    };
    let addresses = net.resolve(name).await;
    Ok(addresses.map(|found| found.into_iter().map(IpAddress::from).collect()).map_err(|error| match error {
        LookupError::Invalid => LookupErrorCode::InvalidArgument,
        LookupError::Denied => LookupErrorCode::AccessDenied,
        LookupError::NotFound => LookupErrorCode::NameUnresolvable,
        LookupError::Temporary => LookupErrorCode::TemporaryResolverFailure,
        LookupError::NoServers => LookupErrorCode::PermanentResolverFailure,
    }))
}
