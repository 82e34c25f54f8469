//! The kube adapters behind the core's ports.
//!
//! [`connect`] gives the client that all of them share. [`NodeWatch`] follows this node's Node, for the adapters that need
//! it. What has a `run` works only while that future is polled, and ends when it is dropped.

mod access;
mod api;
mod authorizer_race;
mod backoff;
mod client;
mod counted;
mod error;
mod events;
mod kubeconfig;
mod mirror;
mod node;
mod objects;
mod source;
mod status;
mod token;
mod transport;
mod watch;

pub use access::KubeAccessReviewer;
pub use client::{ApiClient, ClientOptions, connect};
pub use events::{EventOptions, EventWriter, KubeEventSink, event_sink};
pub use kubeconfig::ConnectError;
pub use mirror::KubeMirrorClient;
pub use node::{LeaseController, NodeController, NodeOptions, NodeWatch};
pub use objects::KubeObjectReader;
pub use source::ApiserverSource;
pub use status::KubeStatusSink;
pub use token::KubeTokenIssuer;
