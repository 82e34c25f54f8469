//! The network as the kernel and real guests see it. Every test has a machine of its own: a network namespace.

mod addresses;
pub(super) mod bed;
mod dual_stack;
mod egress;
mod guests;
mod kill;
mod names;
mod reach;
mod requests;
mod shadows;
mod sockets;
mod sockets_p3;
