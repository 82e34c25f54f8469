//! The command line of `coracle run`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use tracing::level_filters::LevelFilter;

/// Run a WebAssembly file, or the pods of a YAML file
///
/// The exit code is that of the first container that failed, 0 if none did, and 125 if something could not be started.
/// Ctrl-C stops gracefully, a second one at once.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A .wasm file; a YAML file with Pods, ConfigMaps and Secrets; or - for YAML on standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Arguments for the program in a .wasm file
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,

    /// Make a port of the pod reachable through a port of this machine
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER")]
    pub publish: Vec<Publish>,

    /// Set a variable in the environment of a .wasm file
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<Variable>,

    /// Keep images, compiled code and logs here [default: coracle in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub root_dir: Option<PathBuf>,

    /// Talk to this registry without encryption; loopback addresses need no mention
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,

    /// Say more about what is being done; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl RunArgs {
    /// How much of the agent's own log is shown.
    pub(super) fn level(&self) -> LevelFilter {
        match self.verbose {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        }
    }
}

/// `--publish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The address of this machine; all of them if none.
    pub host_ip: Option<IpAddr>,
    /// The port of this machine.
    pub host_port: u16,
    /// The port of the pod.
    pub container_port: u16,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not [IP:]HOST:CONTAINER, as in 8080:80");
        let (host, container) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (ip, host) = match host.rsplit_once(':') {
            Some((ip, port)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), port),
            None => (None, host),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
        Ok(Self {
            host_ip: ip.map(|ip| ip.parse().map_err(|_| wrong())).transpose()?,
            host_port: port(host)?,
            container_port: port(container)?,
        })
    }
}

/// `--env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("{text:?} is not NAME=VALUE")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_to_publish() {
        let publish =
            |text: &str| text.parse::<Publish>().ok().map(|p| (p.host_ip, p.host_port, p.container_port));
        assert_eq!(publish("8080:80"), Some((None, 8080, 80)));
        assert_eq!(publish("127.0.0.1:8080:80"), Some((Some([127, 0, 0, 1].into()), 8080, 80)));
        assert_eq!(publish("[::1]:8080:80"), Some((Some("::1".parse().unwrap()), 8080, 80)));
        for wrong in ["80", "a:80", "0:80", "70000:80", "x:8080:80", ":80", "80:"] {
            assert_eq!(publish(wrong), None, "{wrong}");
        }
    }
}
