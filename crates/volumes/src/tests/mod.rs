//! Tests of the whole crate, with fakes for the ports and real files.

mod atomic_writer;
mod disk;
mod manager;
mod mounts;
mod ownership;
mod pod_files;
mod refusals;
mod subpath;
mod support;
mod token;
