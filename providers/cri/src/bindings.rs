//! CRI v1, as made from `proto/api.proto`. `tests/bindings.rs` says how.

#![allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]

include!("bindings/runtime.v1.rs");
