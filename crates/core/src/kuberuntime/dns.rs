//! How names resolve in a pod (upstream: `pkg/kubelet/network/dns/dns.go`).

use std::path::PathBuf;

use coracle_provider::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::PodExt;
use crate::recorder::{Recorder, reason};

/// The most that resolvers take (`MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// Names of a cluster that come before the node's own.
const CLUSTER_SEARCHES: usize = 3;
/// A longer name makes some resolvers give up (`DNS1123SubdomainMaxLength`).
const MAX_SEARCH_PATH: usize = 253;

/// Makes the resolver configuration of pods.
#[derive(Clone, Debug, Default)]
pub struct DnsConfigurer {
    /// `clusterDNS`.
    pub cluster_dns: Vec<String>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `resolvConf`: the node's own; none switches look-ups off.
    pub resolver_config: Option<PathBuf>,
    /// Whether this node belongs to a cluster: only then is a missing `clusterDNS` worth an Event.
    pub in_cluster: bool,
}

impl DnsConfigurer {
    /// `GetPodDNS`.
    pub(super) fn pod_dns(
        &self,
        pod: &Pod,
        recorder: &Recorder,
    ) -> Result<DnsConfig, coracle_provider::Error> {
        let policy = pod.pod_spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
        let mut config = match policy {
            "None" => DnsConfig::default(),
            "ClusterFirst" if pod.is_host_network() => self.host_dns()?,
            "ClusterFirst" | "ClusterFirstWithHostNet" if !self.cluster_dns.is_empty() => {
                self.cluster_dns(pod)?
            }
            "ClusterFirst" | "ClusterFirstWithHostNet" => {
                self.warn_missing_cluster_dns(pod, recorder);
                self.host_dns()?
            }
            "Default" => self.host_dns()?,
            other => {
                return Err(coracle_provider::Error::invalid(format!(
                    "spec.dnsPolicy: {other:?} is not known"
                )));
            }
        };
        if let Some(own) = &pod.pod_spec().dns_config {
            append(&mut config, own);
        }
        for omitted in fit_limits(&mut config) {
            recorder.warning(pod, reason::DNS_CONFIG_FORMING, omitted);
        }
        Ok(config)
    }

    fn warn_missing_cluster_dns(&self, pod: &Pod, recorder: &Recorder) {
        if self.in_cluster {
            let desc = format!("{}({})", pod.full_name(), pod.uid());
            let message = format!(
                "pod: {desc:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                 \"ClusterFirst\" policy. Falling back to \"Default\" policy."
            );
            recorder.warning(pod, reason::MISSING_CLUSTER_DNS, message);
        }
    }

    /// What of the node's own configuration pods cannot have; none if they can have all of it
    /// (`CheckLimitsForResolvConf`).
    pub fn check_limits_for_resolv_conf(&self) -> Option<String> {
        let path = self.resolver_config.as_ref()?;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Some(format!("open {}: {error}", path.display())),
        };
        let searches = parse_resolv_conf(&text).searches;
        let of_cluster = if self.cluster_domain.is_empty() { 0 } else { CLUSTER_SEARCHES };
        let (limit, path) = (MAX_SEARCHES - of_cluster, path.display());
        if searches.len() > limit {
            return Some(format!(
                "Resolv.conf file '{path}' contains search line consisting of more than {limit} domains!"
            ));
        }
        if searches.iter().any(|search| search.len() > MAX_SEARCH_PATH) {
            return Some(format!(
                "Resolv.conf file \"{path}\" contains a search path which length is more than allowed \
                 {MAX_SEARCH_PATH} chars!"
            ));
        }
        (searches.join(" ").len() > MAX_SEARCH_CHARS).then(|| {
            format!(
                "Resolv.conf file '{path}' contains search line which length is more than allowed \
                 {MAX_SEARCH_CHARS} chars!"
            )
        })
    }

    /// The node's own resolvers.
    fn host_dns(&self) -> Result<DnsConfig, coracle_provider::Error> {
        let Some(path) = &self.resolver_config else {
            return Ok(DnsConfig {
                servers: vec!["127.0.0.1".to_owned()],
                searches: vec![".".to_owned()],
                options: Vec::new(),
            });
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(parse_resolv_conf(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DnsConfig::default()),
            Err(error) => {
                Err(coracle_provider::Error::internal(format!("reading {}: {error}", path.display())))
            }
        }
    }

    fn cluster_dns(&self, pod: &Pod) -> Result<DnsConfig, coracle_provider::Error> {
        let host = self.host_dns()?;
        let domain = &self.cluster_domain;
        let mut searches = Vec::new();
        if !domain.is_empty() {
            searches.push(format!("{}.svc.{domain}", pod.namespace()));
            searches.push(format!("svc.{domain}"));
            searches.push(domain.clone());
        }
        searches.extend(host.searches);
        dedup(&mut searches);
        Ok(DnsConfig { servers: self.cluster_dns.clone(), searches, options: vec!["ndots:5".to_owned()] })
    }
}

/// `parseResolvConf`.
fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            // The last list counts; a trailing dot means the same name.
            Some("search") => {
                let name = |w: &str| if w == "." { w.to_owned() } else { w.trim_end_matches('.').to_owned() };
                config.searches = words.map(name).collect();
            }
            Some("options") => append_options(&mut config.options, words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

/// `appendDNSConfig`.
fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    config.servers.extend(own.nameservers.iter().flatten().cloned());
    dedup(&mut config.servers);
    config.searches.extend(own.searches.iter().flatten().cloned());
    dedup(&mut config.searches);
    let options = own.options.iter().flatten().filter_map(|option| {
        let name = option.name.as_deref().filter(|n| !n.is_empty())?;
        Some(match option.value.as_deref().filter(|v| !v.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        })
    });
    append_options(&mut config.options, options);
}

/// A later option of the same name replaces an earlier one.
fn append_options(options: &mut Vec<String>, more: impl Iterator<Item = String>) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    for option in more {
        options.retain(|o| name(o) != name(&option));
        options.push(option);
    }
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

/// Leaves out what resolvers would not take, and says so (`formDNSConfigFitsLimits`).
fn fit_limits(config: &mut DnsConfig) -> Vec<String> {
    let mut omitted = Vec::new();
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        omitted.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        ));
    }
    let searches = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    config.searches.retain(|search| search.len() <= MAX_SEARCH_PATH);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < searches {
        omitted.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        ));
    }
    omitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf_as_upstream_does() {
        let text = "# c\nnameserver 10.0.0.1\nnameserver 10.0.0.2 ; x\nsearch a b\nsearch x.example. y\noptions ndots:1 edns0\noptions ndots:2\n";
        let config = parse_resolv_conf(text);
        assert_eq!(config.servers, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(config.searches, ["x.example", "y"]);
        assert_eq!(config.options, ["edns0", "ndots:2"]);
    }

    #[test]
    fn what_of_the_nodes_configuration_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let name = |i: usize, length: usize| format!("{i:03}{}", "x".repeat(length - 3));
        let check = |searches: usize, length: usize, domain: &str| {
            let searches: Vec<String> = (0..searches).map(|i| name(i, length)).collect();
            std::fs::write(&path, format!("search {}\n", searches.join(" "))).unwrap();
            let configurer = DnsConfigurer {
                cluster_domain: domain.to_owned(),
                resolver_config: Some(path.clone()),
                ..DnsConfigurer::default()
            };
            configurer.check_limits_for_resolv_conf().unwrap_or_default()
        };
        let cases = [
            ((0, 10, "cluster.local"), ""),
            ((29, 10, "cluster.local"), ""),
            ((30, 10, "cluster.local"), "consisting of more than 29 domains!"),
            ((32, 10, ""), ""),
            ((33, 10, ""), "consisting of more than 32 domains!"),
            ((1, 254, ""), "a search path which length is more than allowed 253 chars!"),
            ((32, 64, ""), "search line which length is more than allowed 2048 chars!"),
        ];
        for ((searches, length, domain), expected) in cases {
            let told = check(searches, length, domain);
            assert!(
                told.ends_with(expected) && told.is_empty() == expected.is_empty(),
                "{searches} {length}: {told}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        let missing = DnsConfigurer { resolver_config: Some(path), ..DnsConfigurer::default() };
        assert!(missing.check_limits_for_resolv_conf().unwrap().starts_with("open /"));
        assert_eq!(DnsConfigurer::default().check_limits_for_resolv_conf(), None);
    }

    #[test]
    fn what_resolvers_would_not_take_is_left_out_and_told() {
        let names = |count: usize, length: usize| -> Vec<String> {
            (0..count).map(|i| format!("{i:03}{}", "x".repeat(length - 3))).collect()
        };
        // Nameservers, search paths and their length; what remains of both, and how much is told.
        let cases = [
            ((1, 1, 10), (1, 1), 0),
            ((3, 32, 10), (3, 32), 0),
            ((4, 1, 10), (3, 1), 1),
            ((1, 33, 10), (1, 32), 1),
            ((1, 2, 254), (1, 0), 1),
            // 31 of 64 characters and 30 spaces fit into 2048, 32 do not.
            ((1, 32, 64), (1, 31), 1),
            ((4, 33, 10), (3, 32), 2),
        ];
        for ((servers, searches, length), expected, told) in cases {
            let mut config = DnsConfig {
                servers: names(servers, 5),
                searches: names(searches, length),
                options: Vec::new(),
            };
            let omitted = fit_limits(&mut config);
            assert_eq!(
                (config.servers.len(), config.searches.len()),
                expected,
                "{servers} {searches} {length}"
            );
            assert_eq!(omitted.len(), told, "{omitted:?}");
        }
        let mut config = DnsConfig { servers: names(4, 4), ..DnsConfig::default() };
        assert_eq!(
            fit_limits(&mut config),
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
              000x 001x 002x"
            ]
        );
    }
}
