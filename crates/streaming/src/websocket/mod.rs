//! The server side of WebSocket (RFC 6455), as streams that are multiplexed by their first byte ([`channels`]) or as one
//! stream of bytes ([`tunnel`]).
//!
//! Messages are passed on piece by piece: their size costs no memory, and needs no bound.

pub(crate) mod channels;
mod frame;
mod handshake;
pub(crate) mod tunnel;

pub(crate) use handshake::{accept, is_requested};

#[cfg(test)]
pub(crate) use frame::tests;
