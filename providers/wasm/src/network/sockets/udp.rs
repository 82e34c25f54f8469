//! `wasi:sockets/udp`.

use std::net::SocketAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{SocketResult, UdpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;

use super::shadow::Shadows;
use super::{Route, as_seen_by_guest, bind_address, lowered, route};
use crate::network::guest::{GuestNet, GuestNetView};
use crate::network::policy::{Destination, Transport};

type Streams = (Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>);

pub(super) fn add<T: GuestNetView + 'static>(mut shadows: Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.resource("udp-socket", ResourceType::host::<UdpSocket>(), |mut store, handle| {
        let data = store.data_mut();
        data.guest_net().forget_bound(Transport::Udp, handle);
        HostUdpSocket::drop(&mut data.sockets(), Resource::new_own(handle))
    })?;
    shadows.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store: StoreContextMut<'_, T>,
         (socket, network, address): (Resource<UdpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move { lowered(start_bind(store.data_mut(), socket, network, address).await) })
        },
    )?;
    shadows.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store: StoreContextMut<'_, T>,
         (socket, remote): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move { lowered(stream(store.data_mut(), socket, remote).await) })
        },
    )?;
    shadows.func_wrap(
        "[method]udp-socket.local-address",
        |mut store, (socket,): (Resource<UdpSocket>,)| {
            let data = store.data_mut();
            let address = HostUdpSocket::local_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data.guest_net(), address)))
        },
    )?;
    shadows.func_wrap(
        "[method]udp-socket.remote-address",
        |mut store, (socket,): (Resource<UdpSocket>,)| {
            let data = store.data_mut();
            let address = HostUdpSocket::remote_address(&mut data.sockets(), socket);
            lowered(address.map(|address| as_seen_by_guest(data.guest_net(), address)))
        },
    )?;
    shadows.func_wrap(
        "[method]outgoing-datagram-stream.send",
        |mut store, (stream, datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            lowered(send(store.data_mut(), stream, datagrams))
        },
    )?;
    shadows.func_wrap(
        "[method]incoming-datagram-stream.receive",
        |mut store, (stream, max_results): (Resource<IncomingDatagramStream>, u64)| {
            lowered(receive(store.data_mut(), stream, max_results))
        },
    )
}

async fn start_bind<T: GuestNetView>(
    data: &mut T,
    socket: Resource<UdpSocket>,
    network: Resource<Network>,
    wanted: IpSocketAddress,
) -> SocketResult<()> {
    let address = bind_address(data.guest_net(), wanted.into(), Transport::Udp)?;
    let handle = socket.rep();
    HostUdpSocket::start_bind(&mut data.sockets(), socket, network, address.into()).await?;
    // The port may have been the kernel's choice.
    let bound = local_address(data, handle)?;
    data.guest_net().note_bound(Transport::Udp, handle, bound);
    Ok(())
}

async fn stream<T: GuestNetView>(
    data: &mut T,
    socket: Resource<UdpSocket>,
    remote: Option<IpSocketAddress>,
) -> SocketResult<Streams> {
    let handle = socket.rep();
    let route = remote.map(|remote| route(data.guest_net(), remote.into(), Transport::Udp)).transpose()?;
    let local = local_address(data, handle)?;
    let place = &data.guest_net().pod().place;
    if route.as_ref().is_some_and(|route| !place.may_leave_from(local.ip(), route.destination)) {
        return Err(ErrorCode::RemoteUnreachable.into());
    }
    let target = route.map(|route| route.target.into());
    let (incoming, outgoing) = HostUdpSocket::stream(&mut data.sockets(), socket, target).await?;
    data.guest_net().note_stream(outgoing.rep(), local.ip().is_loopback());
    Ok((incoming, outgoing))
}

fn send<T: GuestNetView>(
    data: &mut T,
    stream: Resource<OutgoingDatagramStream>,
    datagrams: Vec<OutgoingDatagram>,
) -> SocketResult<u64> {
    let mut routed = Vec::with_capacity(datagrams.len());
    for mut datagram in datagrams {
        match rewrite(data.guest_net(), stream.rep(), &mut datagram) {
            Ok(()) => routed.push(datagram),
            Err(error) if routed.is_empty() => return Err(error),
            // Those before it are sent, and the guest hears of the error when it sends the rest.
            Err(_) => break,
        }
    }
    HostOutgoingDatagramStream::send(&mut data.sockets(), stream, routed)
}

fn rewrite(guest: &GuestNet, stream: u32, datagram: &mut OutgoingDatagram) -> SocketResult<()> {
    // Without an address of its own it goes to the one that the stream was made for, which was checked then.
    let Some(remote) = datagram.remote_address else { return Ok(()) };
    let Route { destination, target } = route(guest, remote.into(), Transport::Udp)?;
    if guest.is_on_loopback(stream) && matches!(destination, Destination::Remote(_)) {
        return Err(ErrorCode::RemoteUnreachable.into());
    }
    datagram.remote_address = Some(target.into());
    Ok(())
}

fn receive<T: GuestNetView>(
    data: &mut T,
    stream: Resource<IncomingDatagramStream>,
    max_results: u64,
) -> SocketResult<Vec<IncomingDatagram>> {
    let mut datagrams = data.sockets().receive(stream, max_results)?;
    for datagram in &mut datagrams {
        datagram.remote_address = as_seen_by_guest(data.guest_net(), datagram.remote_address);
    }
    Ok(datagrams)
}

fn local_address<T: GuestNetView>(data: &mut T, socket: u32) -> SocketResult<SocketAddr> {
    let address = HostUdpSocket::local_address(&mut data.sockets(), Resource::new_borrow(socket))?;
    Ok(address.into())
}
