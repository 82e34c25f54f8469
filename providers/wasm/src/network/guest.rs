//! The network as one guest instance has it: what a store's data holds.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::http_client;
use super::pod::PodNet;
use super::policy::Transport;

/// The network of a pod, in the hands of one instance. Make one for each store with [`PodNet::guest`].
///
/// It is also what sends the instance's outgoing HTTP requests: the `hooks` of `WasiHttpCtxView`.
#[derive(Debug)]
pub struct GuestNet {
    net: Arc<PodNet>,
    /// What the instance's sockets are bound to, by their handles.
    bound: HashMap<(Transport, u32), SocketAddr>,
    /// The handles of datagram streams that send from the pod's loopback address.
    on_loopback: HashSet<u32>,
}

/// A store's data with a [`GuestNet`].
pub trait GuestNetView: WasiView {
    /// The instance's network.
    fn guest_net(&mut self) -> &mut GuestNet;
}

impl PodNet {
    /// The network for an instance of the pod.
    pub fn guest(self: &Arc<Self>) -> GuestNet {
        GuestNet { net: self.clone(), bound: HashMap::new(), on_loopback: HashSet::new() }
    }
}

impl GuestNet {
    /// The network of the pod.
    pub fn pod(&self) -> &Arc<PodNet> {
        &self.net
    }

    pub(super) fn note_bound(&mut self, transport: Transport, handle: u32, address: SocketAddr) {
        self.net.note_bound(address, transport);
        self.bound.insert((transport, handle), address);
    }

    pub(super) fn forget_bound(&mut self, transport: Transport, handle: u32) {
        if let Some(address) = self.bound.remove(&(transport, handle)) {
            self.net.forget_bound(address, transport);
        }
    }

    /// Remembers whether a datagram stream sends from the pod's loopback address. Handles are used again, so this has to
    /// be said of every new stream.
    pub(super) fn note_stream(&mut self, handle: u32, is_on_loopback: bool) {
        if is_on_loopback {
            self.on_loopback.insert(handle);
        } else {
            self.on_loopback.remove(&handle);
        }
    }

    pub(super) fn is_on_loopback(&self, stream: u32) -> bool {
        self.on_loopback.contains(&stream)
    }
}

impl Drop for GuestNet {
    fn drop(&mut self) {
        for ((transport, _), address) in self.bound.drain() {
            self.net.forget_bound(address, transport);
        }
    }
}

/// What becomes of a request, and of the connection afterwards.
type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for GuestNet {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let net = self.net.clone();
        Box::new(async move {
            let response = http_client::send(net, request, options.unwrap_or_default()).await?;
            // The client drives its connections itself.
            Ok((response, Box::new(async { Ok(()) }) as Box<_>))
        })
    }
}
