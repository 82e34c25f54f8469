//! `wasi:sockets/ip-name-lookup`, whole: wasmtime-wasi's own asks the node's resolver.

use std::net::IpAddr;
use std::sync::Arc;
use std::vec;

use async_trait::async_trait;
use wasmtime::StoreContextMut;
use wasmtime::component::{Resource, ResourceTable, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::shadow::Shadows;
use super::{ensure_right_thread, lowered};
use crate::network::guest::GuestNetView;
use crate::network::names::LookupError;

/// A look-up and its answer. Dropping it ends the look-up.
enum ResolveAddressStream {
    Asking(AbortOnDropJoinHandle<Result<Vec<IpAddr>, LookupError>>),
    Answered(Result<vec::IntoIter<IpAddr>, LookupError>),
}

pub(super) fn add<T: GuestNetView + 'static>(mut shadows: Shadows<'_, T>) -> wasmtime::Result<()> {
    shadows.resource(
        "resolve-address-stream",
        ResourceType::host::<ResolveAddressStream>(),
        |mut store, handle| {
            table(&mut store).delete(Resource::<ResolveAddressStream>::new_own(handle))?;
            Ok(())
        },
    )?;
    shadows.func_wrap("resolve-addresses", |mut store, (network, name): (Resource<Network>, String)| {
        lowered(resolve_addresses(store.data_mut(), network, name))
    })?;
    shadows.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store, (stream,): (Resource<ResolveAddressStream>,)| {
            lowered(resolve_next_address(table(&mut store), stream))
        },
    )?;
    shadows.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store,
         (stream,): (Resource<ResolveAddressStream>,)|
         -> wasmtime::Result<(Resource<DynPollable>,)> {
            Ok((subscribe(table(&mut store), stream)?,))
        },
    )
}

fn table<'a, T: GuestNetView>(store: &'a mut StoreContextMut<'_, T>) -> &'a mut ResourceTable {
    store.data_mut().ctx().table
}

fn resolve_addresses<T: GuestNetView>(
    data: &mut T,
    network: Resource<Network>,
    name: String,
) -> SocketResult<Resource<ResolveAddressStream>> {
    // Holding a network is the permission to use it.
    data.ctx().table.get(&network)?;
    ensure_right_thread(data.guest_net())?;
    let net = data.guest_net().pod();
    let stream = match net.resolve_locally(&name) {
        Some(addresses) => ResolveAddressStream::Answered(Ok(addresses.into_iter())),
        None => {
            let net = Arc::clone(net);
            ResolveAddressStream::Asking(spawn(async move { net.resolve(&name).await }))
        }
    };
    Ok(data.ctx().table.push(stream)?)
}

fn resolve_next_address(
    table: &mut ResourceTable,
    stream: Resource<ResolveAddressStream>,
) -> SocketResult<Option<IpAddress>> {
    match table.get_mut(&stream)? {
        ResolveAddressStream::Asking(_) => Err(ErrorCode::WouldBlock.into()),
        ResolveAddressStream::Answered(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
        ResolveAddressStream::Answered(Err(error)) => Err(code(*error)),
    }
}

fn code(error: LookupError) -> SocketError {
    let code = match error {
        LookupError::Invalid => ErrorCode::InvalidArgument,
        LookupError::Denied => ErrorCode::AccessDenied,
        LookupError::NotFound => ErrorCode::NameUnresolvable,
        LookupError::Temporary => ErrorCode::TemporaryResolverFailure,
        LookupError::NoServers => ErrorCode::PermanentResolverFailure,
    };
    code.into()
}

#[async_trait]
impl Pollable for ResolveAddressStream {
    async fn ready(&mut self) {
        if let Self::Asking(lookup) = self {
            let answer = lookup.await;
            *self = Self::Answered(answer.map(Vec::into_iter));
        }
    }
}
