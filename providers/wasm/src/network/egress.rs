//! The list of places that a pod may reach: the annotation [`ANNOTATION`].
//!
//! Entries are separated by commas, and each is a range of addresses, an address or a name, with or without a port:
//! `10.0.0.0/8`, `192.0.2.1:443`, `[fd00::/8]:53`, `api.example.com:443`, `*.example.com`. Without the annotation a pod
//! reaches all that its network lets it reach; an empty one lets it reach itself alone. What the network refuses anyway
//! stays refused.
//!
//! Only listed names are asked for at the pod's name servers: a look-up carries data out of the pod as well as any
//! datagram. What a listed name resolves to may be reached at the ports of its entry.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use coracle_provider::{Error, Result};
use ipnet::IpNet;
use parking_lot::Mutex;

/// The annotation of a pod.
const ANNOTATION: &str = "wasm.coracle.dev/egress-allow";

/// Addresses of names that are remembered. A pod that resolves more than that reaches the latest ones.
const MOST_LEARNED: usize = 1024;

type Ports = RangeInclusive<u16>;

/// What a pod with the annotation may reach.
#[derive(Debug)]
pub(super) struct Egress {
    ranges: Vec<(IpNet, Ports)>,
    names: Vec<(NamePattern, Ports)>,
    /// What listed names resolved to.
    learned: Mutex<VecDeque<(IpAddr, Ports)>>,
}

#[derive(Debug)]
enum NamePattern {
    Exact(String),
    /// A name with at least one label before this, which begins with a dot.
    Below(String),
}

impl Egress {
    /// The list of a pod; none if it has no such annotation.
    ///
    /// `InvalidArgument` names the entry that is wrong.
    pub(super) fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let Some(list) = annotations.get(ANNOTATION) else { return Ok(None) };
        let mut egress = Self { ranges: vec![], names: vec![], learned: Mutex::default() };
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            egress.add(entry).map_err(|reason| {
                Error::invalid(format!(
                    "annotation {ANNOTATION}: {entry:?} {reason}; entries are like 10.0.0.0/8, 192.0.2.1:443, \
                     [fd00::/8]:53, api.example.com:443 or *.example.com"
                ))
            })?;
        }
        Ok(Some(egress))
    }

    fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        // An IPv6 address has colons of its own.
        if let Some(range) = parse_range(entry) {
            self.ranges.push((range, any_port()));
            return Ok(());
        }
        let (target, ports) = match entry.rsplit_once(':') {
            Some((target, port)) => (target, parse_port(port)?),
            None => (entry, any_port()),
        };
        let inside = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match inside {
            Some(inside) => {
                let range = parse_range(inside).filter(|range| matches!(range, IpNet::V6(_)));
                self.ranges.push((range.ok_or("is no range of IPv6 addresses")?, ports));
            }
            None => match parse_range(target) {
                Some(IpNet::V6(_)) => return Err("has an IPv6 address that needs brackets before a port"),
                Some(range) => self.ranges.push((range, ports)),
                None => self.names.push((parse_name(target)?, ports)),
            },
        }
        Ok(())
    }

    /// Whether a pod may send there.
    pub(super) fn allows(&self, to: SocketAddr) -> bool {
        let (ip, port) = (to.ip(), to.port());
        self.ranges.iter().any(|(range, ports)| range.contains(&ip) && ports.contains(&port))
            || self.learned.lock().iter().any(|(known, ports)| *known == ip && ports.contains(&port))
    }

    /// Whether a pod may ask for a name.
    pub(super) fn allows_name(&self, name: &str) -> bool {
        self.names_like(name).next().is_some()
    }

    /// Remembers what a listed name resolved to.
    pub(super) fn learn(&self, name: &str, addresses: &[IpAddr]) {
        let mut learned = self.learned.lock();
        for ports in self.names_like(name) {
            for ip in addresses {
                let new = (*ip, ports.clone());
                learned.retain(|known| *known != new);
                learned.push_back(new);
            }
        }
        let excess = learned.len().saturating_sub(MOST_LEARNED);
        learned.drain(..excess);
    }

    fn names_like(&self, name: &str) -> impl Iterator<Item = &Ports> {
        let name = normalized(name);
        self.names.iter().filter(move |(pattern, _)| pattern.matches(&name)).map(|(_, ports)| ports)
    }
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        }
    }
}

fn any_port() -> Ports {
    0..=u16::MAX
}

fn parse_range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn parse_port(text: &str) -> Result<Ports, &'static str> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port..=port),
        _ => Err("has no port from 1 to 65535 after its last colon"),
    }
}

fn parse_name(text: &str) -> Result<NamePattern, &'static str> {
    let name = normalized(text);
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A last label of digits is a mistyped address.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if labels.len() > 253
        || !labels.split('.').all(is_label)
        || labels.rsplit('.').next().is_none_or(is_number)
    {
        return Err("is neither an address, nor a range, nor a name");
    }
    Ok(match name.strip_prefix('*') {
        Some(suffix) => NamePattern::Below(suffix.to_owned()),
        None => NamePattern::Exact(name),
    })
}

/// Names compare without regard to case, and a final dot only says that no search domain is to be appended.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Egress> {
        let annotations = BTreeMap::from([(ANNOTATION.to_owned(), list.to_owned())]);
        Egress::from_annotations(&annotations).map(|egress| egress.expect("there is one"))
    }

    #[test]
    fn a_pod_without_the_annotation_has_no_list() {
        assert!(Egress::from_annotations(&BTreeMap::new()).unwrap().is_none());
    }

    #[test]
    fn addresses_and_ports_are_matched() {
        let egress = parse("10.0.0.0/8, 192.0.2.1:443,[fd00:1::/32]:53 ,2001:db8::1").unwrap();
        for (to, allowed) in [
            ("10.9.8.7:1", true),
            ("11.0.0.1:1", false),
            ("192.0.2.1:443", true),
            ("192.0.2.1:80", false),
            ("192.0.2.2:443", false),
            ("[fd00:1::9]:53", true),
            ("[fd00:1::9]:54", false),
            ("[2001:db8::1]:9", true),
            ("[2001:db8::2]:9", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            assert_eq!(egress.allows(to.parse().unwrap()), allowed, "{to}");
        }
        assert!(!parse("").unwrap().allows("10.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn names_open_what_they_resolve_to() {
        let egress = parse("API.example.com.:443,*.internal").unwrap();
        for (name, allowed) in [
            ("api.example.com", true),
            ("Api.Example.Com.", true),
            ("www.api.example.com", false),
            ("example.com", false),
            ("db.internal", true),
            ("a.db.internal", true),
            ("internal", false),
            ("xinternal", false),
        ] {
            assert_eq!(egress.allows_name(name), allowed, "{name}");
        }
        let (api, db) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        assert!(!egress.allows(at(api, 443)));
        egress.learn("api.example.com", &[api]);
        egress.learn("db.internal", &[db]);
        egress.learn("other.example.com", &["192.0.2.3".parse().unwrap()]);
        assert!(egress.allows(at(api, 443)) && !egress.allows(at(api, 80)));
        assert!(egress.allows(at(db, 80)));
        assert!(!egress.allows(at("192.0.2.3".parse().unwrap(), 443)));
    }

    #[test]
    fn what_was_learned_is_bounded_and_the_latest_counts() {
        let egress = parse("*.example.com").unwrap();
        let ip = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        for n in 0..=MOST_LEARNED as u32 {
            egress.learn("a.example.com", &[ip(n)]);
        }
        assert!(!egress.allows(SocketAddr::new(ip(0), 1)));
        assert!(egress.allows(SocketAddr::new(ip(1), 1)));
        assert_eq!(egress.learned.lock().len(), MOST_LEARNED);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        for entry in [
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.1:0",
            "10.0.0.1:http",
            "10.0.0.1:65536",
            "fd00::/8:",
            "[10.0.0.1]:80",
            "[fd00::1",
            "exa mple.com",
            "*",
            "*.*.example.com",
            "a..b",
            "http://example.com",
            ":443",
        ] {
            let error = parse(&format!("10.0.0.0/8,{entry}")).unwrap_err();
            assert!(error.message.contains(ANNOTATION) && error.message.contains(entry), "{error}");
        }
    }
}
