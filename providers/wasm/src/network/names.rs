//! Names, resolved as the pod's DNS configuration says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use coracle_provider::{DnsConfig, SandboxConfig};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;

use super::idle::IdleCell;
use super::policy::Place;

/// How many answers a pod's resolver keeps.
const CACHE_SIZE: u64 = 64;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LookupError {
    /// It cannot be a name.
    #[error("the name is not valid")]
    Invalid,
    /// There is no such name, or it has no address.
    #[error("the name does not resolve")]
    NotFound,
    /// The name servers gave no answer; they may later.
    #[error("the name servers gave no answer")]
    Temporary,
    /// There is nobody to ask.
    #[error("the pod has no name servers")]
    NoServers,
}

/// The names that a pod knows.
pub(super) struct Names {
    dns: DnsConfig,
    /// `hostAliases`, the pod's own name and localhost, as `/etc/hosts` would have them.
    fixed: HashMap<String, Vec<IpAddr>>,
    /// Where queries are sent from; none where the kernel may choose.
    source: Option<IpAddr>,
    resolver: IdleCell<TokioResolver>,
}

impl Names {
    pub(super) fn new(config: &SandboxConfig, place: &Place) -> Self {
        let (own, source) = match place {
            Place::Pod { ip, .. } => (Some((*ip).into()), Some((*ip).into())),
            Place::Node { addresses, .. } => (addresses.first().copied(), None),
        };
        let mut fixed: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let mut add = |name: &str, ip| fixed.entry(normalized(name)).or_default().push(ip);
        add("localhost", Ipv4Addr::LOCALHOST.into());
        for alias in &config.host_aliases {
            alias.hostnames.iter().for_each(|name| add(name, alias.ip));
        }
        if let Some(own) = own.filter(|_| !config.hostname.is_empty()) {
            add(&config.hostname, own);
        }
        Self { dns: config.dns.clone(), fixed, source, resolver: IdleCell::default() }
    }

    /// The addresses of a name for which nobody has to be asked: a literal address, or one of the fixed names.
    pub(super) fn resolve_locally(&self, name: &str) -> Option<Vec<IpAddr>> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = literal.parse() {
            return Some(vec![ip]);
        }
        self.fixed.get(&normalized(name)).cloned()
    }

    /// The addresses of a name, asking the pod's name servers if need be. Must run in the pod's namespace.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Some(addresses) = self.resolve_locally(name) {
            return Ok(addresses);
        }
        let name = Name::from_utf8(name).map_err(|_| LookupError::Invalid)?;
        let resolver = self.resolver.get_or_try_make(|| make_resolver(&self.dns, self.source))?;
        let answer = resolver.lookup_ip(name.clone()).await.map_err(|error| {
            tracing::debug!(%name, %error, "name lookup failed");
            classify(&error)
        })?;
        let addresses: Vec<_> = answer.iter().collect();
        if addresses.is_empty() { Err(LookupError::NotFound) } else { Ok(addresses) }
    }
}

/// Names compare without regard to case, and a final dot only says that no search domain is to be appended.
fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn classify(error: &NetError) -> LookupError {
    match error {
        _ if error.is_no_records_found() => LookupError::NotFound,
        NetError::Proto(_) => LookupError::Invalid,
        _ => LookupError::Temporary,
    }
}

fn make_resolver(dns: &DnsConfig, source: Option<IpAddr>) -> Result<TokioResolver, LookupError> {
    let servers: Vec<_> = dns.servers.iter().filter_map(|server| name_server(server, source)).collect();
    if servers.is_empty() {
        return Err(LookupError::NoServers);
    }
    let config = ResolverConfig::from_parts(None, search_domains(&dns.searches), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options(&dns.options, source);
    builder.build().map_err(|error| {
        tracing::warn!(%error, "cannot make a resolver");
        LookupError::NoServers
    })
}

fn name_server(server: &str, source: Option<IpAddr>) -> Option<NameServerConfig> {
    let Ok(ip) = server.parse::<IpAddr>() else {
        tracing::warn!(server, "ignoring a name server that is not an IP address");
        return None;
    };
    if source.is_some() && (ip.is_loopback() || ip.is_ipv6()) {
        tracing::warn!(server, "ignoring a name server that pods cannot reach");
        return None;
    }
    let bind = |mut connection: ConnectionConfig| {
        connection.bind_addr = source.map(|ip| SocketAddr::new(ip, 0));
        connection
    };
    Some(NameServerConfig::new(ip, true, vec![bind(ConnectionConfig::udp()), bind(ConnectionConfig::tcp())]))
}

fn search_domains(searches: &[String]) -> Vec<Name> {
    let parse = |domain: &String| {
        let mut name = Name::from_utf8(domain)
            .inspect_err(|error| tracing::warn!(domain, %error, "ignoring a search domain"))
            .ok()?;
        name.set_fqdn(true);
        // The root appends nothing, and the name itself is tried anyway.
        (!name.is_root()).then_some(name)
    };
    searches.iter().filter_map(parse).collect()
}

/// The options of resolv.conf(5), with its bounds. Those that say how to talk to a server but not what the answer is
/// are left to the resolver.
fn options(options: &[String], source: Option<IpAddr>) -> ResolverOpts {
    let mut result = ResolverOpts::default();
    result.use_hosts_file = ResolveHosts::Never;
    result.cache_size = CACHE_SIZE;
    // A name that does not exist yet, a Service for example, may do so in the next moment.
    result.negative_max_ttl = Some(Duration::ZERO);
    result.num_concurrent_reqs = 1;
    result.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    result.ip_strategy =
        if source.is_some() { LookupIpStrategy::Ipv4Only } else { LookupIpStrategy::Ipv4AndIpv6 };
    for option in options {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u8>()) {
            ("ndots", Ok(n)) => result.ndots = n.min(15).into(),
            ("timeout", Ok(seconds)) => result.timeout = Duration::from_secs(seconds.clamp(1, 30).into()),
            ("attempts", Ok(n)) => result.attempts = n.clamp(1, 5).into(),
            ("rotate", _) => result.server_ordering_strategy = ServerOrderingStrategy::RoundRobin,
            ("no-aaaa", _) => result.ip_strategy = LookupIpStrategy::Ipv4Only,
            _ => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use coracle_provider::HostAlias;

    use super::*;

    fn pod() -> Place {
        Place::Pod { ip: Ipv4Addr::new(10, 4, 2, 5), alias: Ipv4Addr::new(127, 64, 0, 5) }
    }

    fn names(config: SandboxConfig) -> Names {
        Names::new(&config, &pod())
    }

    #[test]
    fn knows_fixed_names_and_literals_by_itself() {
        let alias = |ip: &str, names: &[&str]| HostAlias {
            ip: ip.parse().unwrap(),
            hostnames: names.iter().map(|name| name.to_string()).collect(),
        };
        let names = names(SandboxConfig {
            hostname: "web-0".into(),
            host_aliases: vec![alias("192.0.2.1", &["db", "Db.Example"]), alias("192.0.2.2", &["db"])],
            ..SandboxConfig::default()
        });
        for (name, addresses) in [
            ("localhost", Some(vec!["127.0.0.1"])),
            ("WEB-0", Some(vec!["10.4.2.5"])),
            ("db", Some(vec!["192.0.2.1", "192.0.2.2"])),
            ("db.example.", Some(vec!["192.0.2.1"])),
            ("192.0.2.9", Some(vec!["192.0.2.9"])),
            ("2001:db8::1", Some(vec!["2001:db8::1"])),
            ("[2001:db8::1]", Some(vec!["2001:db8::1"])),
            ("example.com", None),
        ] {
            let expected =
                addresses.map(|list| list.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect());
            assert_eq!(names.resolve_locally(name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn fails_at_once_without_servers() {
        assert_eq!(names(SandboxConfig::default()).resolve("example.com").await, Err(LookupError::NoServers));
        let dns =
            DnsConfig { servers: vec!["127.0.0.53".into(), "dns.example".into()], ..DnsConfig::default() };
        let unreachable = names(SandboxConfig { dns, ..SandboxConfig::default() });
        assert_eq!(unreachable.resolve("example.com").await, Err(LookupError::NoServers));
    }

    #[tokio::test]
    async fn refuses_what_is_no_name() {
        let long = "a".repeat(64);
        assert_eq!(names(SandboxConfig::default()).resolve(&long).await, Err(LookupError::Invalid));
    }

    #[test]
    fn reads_options_as_resolv_conf_does() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let read =
            options(&list(&["ndots:5", "timeout:2", "attempts:3", "edns0", "unknown:7", "ndots:x"]), None);
        assert_eq!((read.ndots, read.timeout, read.attempts), (5, Duration::from_secs(2), 3));
        assert_eq!(read.ip_strategy, LookupIpStrategy::Ipv4AndIpv6);
        let bounded =
            options(&list(&["ndots:99", "timeout:0", "attempts:99", "rotate"]), Some([10, 0, 0, 2].into()));
        assert_eq!((bounded.ndots, bounded.timeout, bounded.attempts), (15, Duration::from_secs(1), 5));
        assert_eq!(bounded.server_ordering_strategy, ServerOrderingStrategy::RoundRobin);
        assert_eq!(bounded.ip_strategy, LookupIpStrategy::Ipv4Only);
    }

    #[test]
    fn search_domains_are_absolute() {
        let domains = search_domains(&["ns.svc.cluster.local".into(), ".".into(), "bad..domain".into()]);
        assert_eq!(domains.iter().map(Name::to_string).collect::<Vec<_>>(), ["ns.svc.cluster.local."]);
    }
}
