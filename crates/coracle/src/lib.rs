//! The parts of the `coracle` binary that stand on their own.

pub mod config;
