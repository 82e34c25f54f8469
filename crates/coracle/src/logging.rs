//! The agent's own log, on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What is logged now. The log is the process's, and so is this.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging, once in the life of the process. `RUST_LOG` says more precisely what is wanted, if it is set.
pub(crate) fn start(level: LevelFilter, format: Format) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
    };
    // A second start, in tests, changes nothing.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Changes how much is logged, by the text of a klog verbosity (`GlogSetter`). `RUST_LOG` counts as at the start.
pub(crate) fn set_verbosity(value: &str) -> Result<(), String> {
    let verbosity = value.parse().map_err(|error| format!("{value:?} is no verbosity: {error}"))?;
    let handle = FILTER.get().ok_or("this process does not log")?;
    handle.reload(filter(level(verbosity))).map_err(|error| error.to_string())?;
    tracing::info!(verbosity, "the verbosity of the log was changed");
    Ok(())
}

fn filter(level: LevelFilter) -> EnvFilter {
    EnvFilter::builder().with_default_directive(level.into()).from_env_lossy()
}

/// The level that a klog verbosity (`-v`) asks for: 2 is what operators run with, 4 is for debugging.
pub(crate) fn level(verbosity: u32) -> LevelFilter {
    match verbosity {
        0..=3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verbosity_is_changed_while_the_process_runs() {
        start(level(2), Format::Text);
        let is_debug = || {
            FILTER.get().unwrap().with_current(|f| f.max_level_hint()).unwrap() >= Some(LevelFilter::DEBUG)
        };
        set_verbosity("4").unwrap();
        assert!(is_debug());
        set_verbosity("2").unwrap();
        let error = set_verbosity("loud").unwrap_err();
        assert!(error.starts_with("\"loud\" is no verbosity"), "{error}");
        assert!(set_verbosity("-1").is_err());
        if std::env::var_os("RUST_LOG").is_none() {
            assert!(!is_debug());
        }
    }
}
