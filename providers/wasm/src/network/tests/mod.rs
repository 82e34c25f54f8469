//! The network as the kernel and real guests see it. Every test has a machine of its own: a network namespace.

mod addresses;
mod bed;
mod guests;
mod kill;
mod names;
mod requests;
mod sockets;
mod sockets_p3;
