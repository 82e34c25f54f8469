//! Names, resolved as the pod's DNS configuration says.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use coracle_provider::{DnsConfig, NetworkMode, SandboxConfig};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;

use super::egress::normalized;
use super::idle::IdleCell;
use super::policy::{Place, localhost_like, of_family};

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
    /// The pod may not ask for it.
    #[error("the pod's egress list does not have the name")]
    Denied,
    /// There is nobody to ask.
    #[error("the pod has no name servers")]
    NoServers,
}

/// The names that a pod knows.
pub(super) struct Names {
    dns: DnsConfig,
    /// `hostAliases`, the pod's own name and localhost, as `/etc/hosts` would have them.
    fixed: HashMap<String, Vec<IpAddr>>,
    place: Place,
    /// Whether the node's `/etc/hosts` holds: a pod that asks for the node's network has that.
    has_node_hosts: bool,
    resolver: IdleCell<TokioResolver>,
}

impl Names {
    pub(super) fn new(config: &SandboxConfig, place: &Place) -> Self {
        let (own, localhosts) = match place {
            Place::Pod { ips, aliases } => {
                (&ips[..], aliases.iter().map(|alias| localhost_like(*alias)).collect())
            }
            Place::Namespace { ips } => (&ips[..], ips.iter().map(|ip| localhost_like(*ip)).collect()),
            Place::Node { addresses, .. } => {
                (&addresses[..addresses.len().min(1)], vec![IpAddr::from(Ipv4Addr::LOCALHOST)])
            }
        };
        let mut fixed: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let mut add = |name: &str, ip| fixed.entry(normalized(name)).or_default().push(ip);
        localhosts.into_iter().for_each(|ip| add("localhost", ip));
        for alias in &config.host_aliases {
            alias.hostnames.iter().for_each(|name| add(name, alias.ip));
        }
        for name in own_names(config) {
            own.iter().for_each(|ip| add(&name, *ip));
        }
        Self {
            dns: config.dns.clone(),
            fixed,
            place: place.clone(),
            has_node_hosts: config.network == NetworkMode::Node,
            resolver: IdleCell::default(),
        }
    }

    /// The addresses of a name for which nobody has to be asked: a literal address, or one of the fixed names.
    pub(super) fn resolve_locally(&self, name: &str) -> Option<Vec<IpAddr>> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = literal.parse() {
            return Some(vec![ip]);
        }
        self.fixed.get(&normalized(name)).cloned()
    }

    /// What the pod's name servers say of a name. Must run in the pod's namespace.
    pub(super) async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let name = Name::from_utf8(name).map_err(|_| LookupError::Invalid)?;
        let resolver = self.resolver.get_or_try_make(|| self.make_resolver())?;
        let answer = resolver.lookup_ip(name.clone()).await.map_err(|error| {
            tracing::debug!(%name, %error, "name lookup failed");
            classify(&error)
        })?;
        let mut addresses: Vec<_> = answer.iter().collect();
        // The pod's primary family comes first.
        let is_v4 = self.place.ips().first().is_none_or(IpAddr::is_ipv4);
        addresses.sort_by_key(|ip| ip.is_ipv4() != is_v4);
        if addresses.is_empty() { Err(LookupError::NotFound) } else { Ok(addresses) }
    }

    fn make_resolver(&self) -> Result<TokioResolver, LookupError> {
        let Self { dns, place, .. } = self;
        let servers: Vec<_> = dns.servers.iter().filter_map(|server| name_server(server, place)).collect();
        if servers.is_empty() {
            return Err(LookupError::NoServers);
        }
        let config = ResolverConfig::from_parts(None, search_domains(&dns.searches), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options(&dns.options, strategy(place));
        if self.has_node_hosts {
            builder.options_mut().use_hosts_file = ResolveHosts::Always;
        }
        builder.build().map_err(|error| {
            tracing::warn!(%error, "cannot make a resolver");
            LookupError::NoServers
        })
    }
}

/// What the pod is called: with its domain, and without.
fn own_names(config: &SandboxConfig) -> Vec<String> {
    let SandboxConfig { hostname, domain, .. } = config;
    if hostname.is_empty() || domain.is_empty() {
        return Some(hostname.clone()).filter(|name| !name.is_empty()).into_iter().collect();
    }
    // The host name has the domain already if the pod wants that.
    let short = hostname.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
    let short = short.unwrap_or(hostname);
    vec![format!("{short}.{domain}"), short.to_owned()]
}

fn classify(error: &NetError) -> LookupError {
    match error {
        _ if error.is_no_records_found() => LookupError::NotFound,
        NetError::Proto(_) => LookupError::Invalid,
        _ => LookupError::Temporary,
    }
}

fn name_server(server: &str, place: &Place) -> Option<NameServerConfig> {
    let Ok(ip) = server.parse::<IpAddr>() else {
        tracing::warn!(server, "ignoring a name server that is not an IP address");
        return None;
    };
    let own = of_family(place.ips(), ip);
    let is_on_node = matches!(place, Place::Node { .. });
    if !is_on_node && (ip.is_loopback() || own.is_none()) {
        tracing::warn!(server, "ignoring a name server that pods cannot reach");
        return None;
    }
    let source = own.filter(|_| matches!(place, Place::Pod { .. }));
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

/// Addresses of which family are of use to a pod.
fn strategy(place: &Place) -> LookupIpStrategy {
    let has = |is_v4: bool| place.ips().iter().any(|ip| ip.is_ipv4() == is_v4);
    match (place, has(true), has(false)) {
        (Place::Node { .. }, ..) | (_, true, true) => LookupIpStrategy::Ipv4AndIpv6,
        (_, _, false) => LookupIpStrategy::Ipv4Only,
        (_, false, _) => LookupIpStrategy::Ipv6Only,
    }
}

/// The options of resolv.conf(5), with its bounds. Those that say how to talk to a server but not what the answer is
/// are left to the resolver.
fn options(options: &[String], strategy: LookupIpStrategy) -> ResolverOpts {
    let mut result = ResolverOpts::default();
    result.use_hosts_file = ResolveHosts::Never;
    result.cache_size = CACHE_SIZE;
    // A name that does not exist yet, a Service for example, may do so in the next moment.
    result.negative_max_ttl = Some(Duration::ZERO);
    result.num_concurrent_reqs = 1;
    result.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    result.ip_strategy = strategy;
    for option in options {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u8>()) {
            ("ndots", Ok(n)) => result.ndots = n.min(15).into(),
            ("timeout", Ok(seconds)) => result.timeout = Duration::from_secs(seconds.clamp(1, 30).into()),
            ("attempts", Ok(n)) => result.attempts = n.clamp(1, 5).into(),
            ("rotate", _) => result.server_ordering_strategy = ServerOrderingStrategy::RoundRobin,
            ("no-aaaa", _) if strategy == LookupIpStrategy::Ipv4AndIpv6 => {
                result.ip_strategy = LookupIpStrategy::Ipv4Only;
            }
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
        Place::Pod { ips: vec![[10, 4, 2, 5].into()], aliases: vec![[127, 64, 0, 5].into()] }
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
        assert_eq!(names(SandboxConfig::default()).ask("example.com").await, Err(LookupError::NoServers));
        let dns =
            DnsConfig { servers: vec!["127.0.0.53".into(), "dns.example".into()], ..DnsConfig::default() };
        let unreachable = names(SandboxConfig { dns, ..SandboxConfig::default() });
        assert_eq!(unreachable.ask("example.com").await, Err(LookupError::NoServers));
    }

    #[test]
    fn only_a_pod_on_the_nodes_network_has_the_nodes_names() {
        let dns = DnsConfig { servers: vec!["192.0.2.53".into()], ..DnsConfig::default() };
        let place = Place::Node { addresses: vec![[192, 0, 2, 10].into()], host_loopback: true };
        for (network, expected) in
            [(NetworkMode::Node, ResolveHosts::Always), (NetworkMode::Pod, ResolveHosts::Never)]
        {
            let config = SandboxConfig { network, dns: dns.clone(), ..SandboxConfig::default() };
            let resolver = Names::new(&config, &place).make_resolver().unwrap();
            assert_eq!(resolver.options().use_hosts_file, expected);
        }
    }

    #[tokio::test]
    async fn refuses_what_is_no_name() {
        let long = "a".repeat(64);
        assert_eq!(names(SandboxConfig::default()).ask(&long).await, Err(LookupError::Invalid));
    }

    #[test]
    fn reads_options_as_resolv_conf_does() {
        let both = LookupIpStrategy::Ipv4AndIpv6;
        let list = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let read =
            options(&list(&["ndots:5", "timeout:2", "attempts:3", "edns0", "unknown:7", "ndots:x"]), both);
        assert_eq!((read.ndots, read.timeout, read.attempts), (5, Duration::from_secs(2), 3));
        assert_eq!(read.ip_strategy, LookupIpStrategy::Ipv4AndIpv6);
        let bounded =
            options(&list(&["ndots:99", "timeout:0", "attempts:99", "rotate", "no-aaaa"]), strategy(&pod()));
        assert_eq!((bounded.ndots, bounded.timeout, bounded.attempts), (15, Duration::from_secs(1), 5));
        assert_eq!(bounded.server_ordering_strategy, ServerOrderingStrategy::RoundRobin);
        assert_eq!(bounded.ip_strategy, LookupIpStrategy::Ipv4Only);
    }

    #[test]
    fn a_pod_of_both_families_knows_itself_and_localhost_by_both() {
        let ips: Vec<IpAddr> = ["fd00:4::5", "10.4.2.5"].map(|ip| ip.parse().unwrap()).into();
        let aliases = vec![[127, 64, 0, 5].into(), "fd7a:6c6f:6f70:6261::5".parse().unwrap()];
        let pod = Place::Pod { ips: ips.clone(), aliases };
        let config = SandboxConfig { hostname: "web".into(), ..SandboxConfig::default() };
        let names = Names::new(&config, &pod);
        assert_eq!(names.resolve_locally("web"), Some(ips.clone()));
        assert_eq!(names.resolve_locally("web.sub.ns.svc.x"), None);
        // With its domain it has two names, whichever of them the kernel is told.
        for hostname in ["web", "web.sub.ns.svc.x"] {
            let (hostname, domain) = (hostname.into(), "sub.ns.svc.x".into());
            let config = SandboxConfig { hostname, domain, ..SandboxConfig::default() };
            let names = Names::new(&config, &pod);
            for name in ["web", "web.sub.ns.svc.x"] {
                assert_eq!(names.resolve_locally(name), Some(ips.clone()));
            }
        }
        let localhosts = vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        assert_eq!(names.resolve_locally("localhost"), Some(localhosts));
        assert_eq!(strategy(&pod), LookupIpStrategy::Ipv4AndIpv6);
        assert_eq!(strategy(&Place::Namespace { ips: ips[..1].to_vec() }), LookupIpStrategy::Ipv6Only);
    }

    #[test]
    fn name_servers_are_asked_from_the_pods_address_of_their_family() {
        let ips: Vec<IpAddr> = ["fd00:4::5", "10.4.2.5"].map(|ip| ip.parse().unwrap()).into();
        let pod = Place::Pod { ips: ips.clone(), aliases: vec![] };
        for (server, source) in [("10.96.0.10", ips[1]), ("fd00:96::a", ips[0])] {
            let server = name_server(server, &pod).unwrap();
            assert!(server.connections.iter().all(|c| c.bind_addr == Some(SocketAddr::new(source, 0))));
        }
        let alone = name_server("10.96.0.10", &Place::Namespace { ips }).unwrap();
        assert!(alone.connections.iter().all(|c| c.bind_addr.is_none()));
        assert!(name_server("fd00:96::a", &self::pod()).is_none());
        assert!(name_server("127.0.0.53", &pod).is_none());
    }

    #[test]
    fn search_domains_are_absolute() {
        let domains = search_domains(&["ns.svc.cluster.local".into(), ".".into(), "bad..domain".into()]);
        assert_eq!(domains.iter().map(Name::to_string).collect::<Vec<_>>(), ["ns.svc.cluster.local."]);
    }
}
