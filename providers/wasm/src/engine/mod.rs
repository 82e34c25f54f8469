//! The engine that runs all guests, and the clock that interrupts them.

mod settings;
mod ticker;

use std::hash::{Hash, Hasher};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::metrics::Metrics;

pub(crate) use settings::compile_settings;
pub(crate) use ticker::Ticker;

/// The version of the engine, as `nodeInfo.containerRuntimeVersion` shows it.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";

/// One engine with its clock.
#[derive(Debug)]
pub(crate) struct Engine {
    wasmtime: wasmtime::Engine,
    ticker: Ticker,
    metrics: Metrics,
}

impl Engine {
    /// An engine for at most `instances` guests at once; `tick` is the longest time that a guest computes before
    /// it has to yield.
    ///
    /// Where the address space is too small for the pool, instances are allocated one by one instead: slower to
    /// start, otherwise the same.
    pub(crate) fn new(instances: u32, tick: Duration) -> Result<Self, EngineError> {
        settings::check_mappings(instances);
        let mut config = compile_settings();
        config.allocation_strategy(settings::pooling(instances));
        let wasmtime = match wasmtime::Engine::new(&config) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "no address space for a pool of instances");
                wasmtime::Engine::new(&compile_settings())
                    .map_err(|e| EngineError::Unusable(format!("{e:#}")))?
            }
        };
        let ticker = Ticker::start(wasmtime.clone(), tick).map_err(EngineError::Ticker)?;
        let metrics = Metrics::new().map_err(EngineError::Metrics)?;
        Ok(Self { wasmtime, ticker, metrics })
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.wasmtime
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// What its guests are counted in.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Names everything that compiled code depends on besides its input: the engine's version, its settings and
    /// the processor's features. 16 hexadecimal digits.
    pub(crate) fn compatibility(&self) -> String {
        let mut hasher = StableHasher(Sha256::new());
        self.wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The machine cannot run compiled WebAssembly.
    #[error("the WebAssembly engine does not work on this machine: {0}")]
    Unusable(String),
    /// The clock's thread did not start.
    #[error("cannot start the thread that interrupts guests: {0}")]
    Ticker(std::io::Error),
    /// Something is counted twice under one name.
    #[error("the engine cannot count: {0}")]
    Metrics(prometheus::Error),
}

/// A hasher whose result is the same in every process, unlike the standard library's.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_does_not_change_what_compiled_code_depends_on() {
        let pooled = Engine::new(10, Duration::from_millis(1)).unwrap();
        let plain = Engine {
            wasmtime: wasmtime::Engine::new(&compile_settings()).unwrap(),
            ticker: Ticker::start(wasmtime::Engine::default(), Duration::from_millis(1)).unwrap(),
            metrics: Metrics::new().unwrap(),
        };
        assert_eq!(pooled.compatibility(), plain.compatibility());
        assert_eq!(pooled.compatibility().len(), 16);
    }

    #[test]
    fn the_reported_version_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = lock.split("[[package]]").find(|p| p.contains("name = \"wasmtime\"\n")).unwrap();
        assert!(entry.contains(&format!("version = \"{WASMTIME_VERSION}\"")), "{entry}");
    }
}
