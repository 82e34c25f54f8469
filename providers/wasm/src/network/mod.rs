//! Pod networks: the addresses of pods and the sockets of their guests.
//!
//! A pod's address costs no system call: all pods share one network namespace in which the whole range is local
//! (`address_mode`), and a pod takes a number from a pool. What a container gets from a namespace of its own, a guest gets
//! from its host: the functions of `wasi:sockets` put the pod's addresses in place of those that the guest names
//! ([`add_to_linker`]), names resolve as the pod's `dnsPolicy` says, and outgoing HTTP leaves from the pod's address
//! ([`GuestNet`]). Where the node's CNI plugins give pods their addresses (`cni`), each pod has a namespace of its own, and
//! of all this only the refusals are left to do.
//!
//! What a guest asks for, and what it gets:
//!
//! | | a pod with its own address | a pod with CNI's | a pod on the node's addresses |
//! |---|---|---|---|
//! | listen on 0.0.0.0 or [::] | the pod's address of the family | as asked | the node's primary address of the family |
//! | listen on 127.0.0.1 or [::1] | an alias that only this pod can reach | as asked | the node's localhost |
//! | connect to these | the alias if something listens there, else the pod's address | as asked | services of the same pod; others with `hostNetwork` or if the operator allows it |
//! | connect elsewhere | from the pod's address, through the node | from the pod's address | from the node's address |
//! | link-local addresses, cloud metadata, embedded IPv4 | refused | refused | refused |
//! | a family that the pod has no address of | unreachable | unreachable | as the node has it |
//! | what the pod's [egress list](egress::ANNOTATION) lacks | refused | refused | refused |
//!
//! All sockets of guests are made on threads that entered the right namespace ([`Network::guest_thread_init`]). A guest that
//! runs on another thread traps before it gets a socket.

mod address_mode;
mod carried;
mod cni;
mod egress;
mod error;
mod guest;
mod http_client;
mod idle;
mod masquerade;
mod names;
mod namespace;
mod netlink;
#[expect(clippy::module_inception, reason = "the module holds the type that it is named after")]
mod network;
mod pod;
mod policy;
mod pool;
mod ports;
mod range;
mod socket;
mod sockets;
mod traffic;

pub use cni::CniConfig;
pub use error::NetworkError;
pub use guest::{GuestNet, GuestNetView};
pub(crate) use http_client::TimedBody;
pub use network::{DEFAULT_BLOCK, Network, NetworkConfig, PodRangeConfig};
pub use pod::PodNet;
pub use sockets::{add_p3_to_linker, add_to_linker};

#[cfg(test)]
mod tests;
