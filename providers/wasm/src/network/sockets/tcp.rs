//! `wasi:sockets/tcp`.

use std::net::SocketAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::{SocketResult, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;

use super::shadow::Shadows;
use super::{as_seen_by_guest, bind_address, lowered, route};
use crate::network::guest::GuestNetView;
use crate::network::policy::Transport;

pub(super) fn add<T: GuestNetView + 'static>(mut shadows: Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.resource("tcp-socket", ResourceType::host::<TcpSocket>(), |mut store, handle| {
        let data = store.data_mut();
        data.guest_net().forget_bound(Transport::Tcp, handle);
        HostTcpSocket::drop(&mut data.sockets(), Resource::new_own(handle))
    })?;
    shadows.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store: StoreContextMut<'_, T>,
         (socket, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move { lowered(start_bind(store.data_mut(), socket, network, address).await) })
        },
    )?;
    shadows.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |mut store: StoreContextMut<'_, T>,
         (socket, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move { lowered(start_connect(store.data_mut(), socket, network, address).await) })
        },
    )?;
    shadows.func_wrap(
        "[method]tcp-socket.local-address",
        |mut store, (socket,): (Resource<TcpSocket>,)| {
            let data = store.data_mut();
            let address = data.sockets().local_address(socket);
            lowered(address.map(|address| as_seen_by_guest(data.guest_net(), address)))
        },
    )?;
    shadows.func_wrap("[method]tcp-socket.remote-address", |mut store, (socket,): (Resource<TcpSocket>,)| {
        let data = store.data_mut();
        let address = data.sockets().remote_address(socket);
        lowered(address.map(|address| as_seen_by_guest(data.guest_net(), address)))
    })
}

async fn start_bind<T: GuestNetView>(
    data: &mut T,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    wanted: IpSocketAddress,
) -> SocketResult<()> {
    let address = bind_address(data.guest_net(), wanted.into(), Transport::Tcp)?;
    let handle = socket.rep();
    data.sockets().start_bind(socket, network, address.into()).await?;
    // The port may have been the kernel's choice.
    let bound = data.sockets().local_address(Resource::new_borrow(handle))?;
    data.guest_net().note_bound(Transport::Tcp, handle, bound.into());
    Ok(())
}

async fn start_connect<T: GuestNetView>(
    data: &mut T,
    socket: Resource<TcpSocket>,
    network: Resource<Network>,
    wanted: IpSocketAddress,
) -> SocketResult<()> {
    let route = route(data.guest_net(), wanted.into(), Transport::Tcp)?;
    let (handle, network_handle) = (socket.rep(), network.rep());
    match data.sockets().local_address(Resource::new_borrow(handle)) {
        Ok(local) => {
            let local = SocketAddr::from(local).ip();
            if !data.guest_net().pod().place.may_leave_from(local, route.destination) {
                return Err(ErrorCode::RemoteUnreachable.into());
            }
        }
        // Not bound, or in a state in which these calls find what is wrong.
        Err(_) => {
            if let Some(source) = data.guest_net().pod().source(route.destination) {
                let (socket, network) = (Resource::new_borrow(handle), Resource::new_borrow(network_handle));
                data.sockets().start_bind(socket, network, source.into()).await?;
                data.sockets().finish_bind(Resource::new_borrow(handle))?;
            }
        }
    }
    data.sockets().start_connect(socket, network, route.target.into())
}
