//! What clients and instances of a service may take.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// What clients may take from one service.
#[derive(Clone, Debug)]
pub struct ServiceLimits {
    /// Connections at once; more wait to be accepted. Stops clients that use up the node's descriptors.
    pub connections: usize,
    /// Requests at once, and so instances; more wait. Stops clients that use up the node's instances. A container's
    /// memory limit may lower it.
    pub requests: usize,
    /// How long a request waits for its turn before it is answered with 503.
    pub queue_timeout: Duration,
    /// How long a client may take to send a request's head, and a connection may stay without a request. Stops
    /// clients that open connections and say nothing.
    pub header_timeout: Duration,
    /// How long a client may take to send the next part of a body, or to take one of an answer. Stops clients that hold
    /// instances and do nothing.
    pub body_timeout: Duration,
    /// Bytes of a request's head, and what is buffered of its body.
    pub header_bytes: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 128,
            queue_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            header_bytes: 64 << 10,
        }
    }
}

/// The pod's annotation for the number of requests that one instance answers, one after another or at once.
const COUNT: &str = "wasm.coracle.dev/http-reuse-count";
/// The pod's annotation for the number of requests that one instance answers at once.
const CONCURRENCY: &str = "wasm.coracle.dev/http-reuse-concurrency";
/// The pod's annotation for the time in seconds that an instance without a request is kept.
const IDLE: &str = "wasm.coracle.dev/http-reuse-idle-seconds";

const MOST_COUNT: usize = 10_000;
const MOST_CONCURRENCY: usize = 128;
const MOST_IDLE_SECONDS: u64 = 3600;

/// How often an instance is used again. What one request leaves behind in it, the next one finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reuse {
    /// Requests in the life of an instance.
    pub(super) count: usize,
    /// Of them at once.
    pub(super) concurrency: usize,
    /// How long it waits for the next one.
    pub(super) idle: Duration,
}

/// An annotation that says nothing that can be done.
#[derive(Debug, thiserror::Error)]
#[error("the annotation {name}: {value:?} is wrong: {why}")]
pub(crate) struct ReuseError {
    name: &'static str,
    value: String,
    why: String,
}

/// A fresh instance for each request.
impl Default for Reuse {
    fn default() -> Self {
        Self { count: 1, concurrency: 1, idle: Duration::from_secs(1) }
    }
}

impl Reuse {
    /// As the pod's annotations say. Without them a component of WASI 0.2 gets a fresh instance for each request, and
    /// one of WASI 0.3 answers 128, 16 at a time, as `wasmtime serve` has it.
    pub(crate) fn from_annotations(
        annotations: &BTreeMap<String, String>,
        is_p3: bool,
    ) -> Result<Self, ReuseError> {
        let default = if is_p3 { (128, 16) } else { (1, 1) };
        let count = number(annotations, COUNT, MOST_COUNT)?.unwrap_or(default.0);
        let concurrency = number(annotations, CONCURRENCY, MOST_CONCURRENCY)?.unwrap_or(default.1);
        if concurrency > 1 && !is_p3 {
            return Err(ReuseError {
                name: CONCURRENCY,
                value: concurrency.to_string(),
                why: "components of WASI 0.2 answer one request at a time".into(),
            });
        }
        let idle = number(annotations, IDLE, MOST_IDLE_SECONDS)?.unwrap_or(1);
        Ok(Self { count, concurrency: concurrency.min(count), idle: Duration::from_secs(idle) })
    }
}

fn number<N: FromStr + PartialOrd + From<u8> + std::fmt::Display>(
    annotations: &BTreeMap<String, String>,
    name: &'static str,
    most: N,
) -> Result<Option<N>, ReuseError> {
    let Some(value) = annotations.get(name) else { return Ok(None) };
    match value.parse::<N>() {
        Ok(number) if number >= N::from(1) && number <= most => Ok(Some(number)),
        _ => Err(ReuseError {
            name,
            value: value.clone(),
            why: format!("it has to be a number from 1 to {most}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reuse(annotations: &[(&str, &str)], is_p3: bool) -> Result<(usize, usize, u64), String> {
        let annotations = annotations.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Reuse::from_annotations(&annotations, is_p3)
            .map(|reuse| (reuse.count, reuse.concurrency, reuse.idle.as_secs()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn instances_are_fresh_or_as_often_used_as_the_pod_says() {
        assert_eq!(reuse(&[], false), Ok((1, 1, 1)));
        assert_eq!(reuse(&[], true), Ok((128, 16, 1)));
        assert_eq!(reuse(&[(COUNT, "100"), (IDLE, "60")], false), Ok((100, 1, 60)));
        assert_eq!(reuse(&[(COUNT, "1")], true), Ok((1, 1, 1)));
        assert_eq!(reuse(&[(COUNT, "50"), (CONCURRENCY, "4")], true), Ok((50, 4, 1)));
    }

    #[test]
    fn annotations_out_of_bounds_are_named() {
        for (name, value, is_p3) in [
            (COUNT, "0", false),
            (COUNT, "10001", true),
            (COUNT, "many", false),
            (CONCURRENCY, "129", true),
            (CONCURRENCY, "2", false),
            (IDLE, "-1", true),
            (IDLE, "3601", true),
        ] {
            let error = reuse(&[(name, value)], is_p3).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
