//! The API as its clients see it: over real TLS, with a kubelet and an apiserver that are fakes.

mod access;
mod fakes;
mod health;
mod limits;
mod logs;
mod pki;
mod pods;
mod server;
mod tls;
