//! The hosts file of a pod (upstream: `managedHostsFileContent`, `nodeHostsFileContent` in `kubelet_pods.go`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::HostAlias;

use super::hostname::PodHostname;

/// Where it is, on the node and in containers (`etcHostsPath`).
pub(super) const ETC_HOSTS: &str = "/etc/hosts";

const MANAGED_HEADER: &str = "# Kubernetes-managed hosts file.\n";
const MANAGED_HEADER_WITH_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const LOCAL: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// Of a pod with addresses of its own.
pub(super) fn managed_hosts(ips: &[IpAddr], name: &PodHostname, aliases: &[HostAlias]) -> Vec<u8> {
    let PodHostname { hostname, domain } = name;
    let mut text = [MANAGED_HEADER, LOCAL].concat();
    for ip in ips {
        text.push_str(&match domain.as_str() {
            "" => format!("{ip}\t{hostname}\n"),
            domain => format!("{ip}\t{hostname}.{domain}\t{hostname}\n"),
        });
    }
    text.push_str(&of_aliases(aliases));
    text.into_bytes()
}

/// Of a pod on the node's network, whose own file is `node`.
pub(super) fn node_hosts(node: &[u8], aliases: &[HostAlias]) -> Vec<u8> {
    [MANAGED_HEADER_WITH_HOST_NETWORK.as_bytes(), node, of_aliases(aliases).as_bytes()].concat()
}

/// `hostsEntriesFromHostAliases`.
fn of_aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address and its names.
    type Alias = (&'static str, &'static [&'static str]);

    fn aliases(list: &[Alias]) -> Vec<HostAlias> {
        let alias = |(ip, names): &Alias| HostAlias {
            ip: (*ip).to_owned(),
            hostnames: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        list.iter().map(alias).collect()
    }

    const TWO: [Alias; 2] =
        [("123.45.67.89", &["foo", "bar", "baz"]), ("10.78.90.123", &["park", "doo", "boo"])];
    const ADDED: &str = "\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\tbaz\n";
    const ADDED_TOO: &str = "10.78.90.123\tpark\tdoo\tboo\n";

    /// `TestManagedHostsFileContent`.
    #[test]
    fn a_pod_of_its_own_has_its_names() {
        let head = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
                    fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
        let one = "203.0.113.1\tpodFoo.domainFoo\tpodFoo\n";
        let cases: [(&[&str], &str, &[Alias], String); 5] = [
            (&["123.45.67.89"], "", &[], "123.45.67.89\tpodFoo\n".to_owned()),
            (&["203.0.113.1"], "domainFoo", &[], one.to_owned()),
            (&["203.0.113.1"], "domainFoo", &TWO[..1], [one, ADDED].concat()),
            (&["203.0.113.1"], "domainFoo", &TWO, [one, ADDED, ADDED_TOO].concat()),
            (
                &["203.0.113.1", "fd00::6"],
                "domainFoo",
                &[],
                [one, "fd00::6\tpodFoo.domainFoo\tpodFoo\n"].concat(),
            ),
        ];
        for (ips, domain, added, expected) in cases {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            let name = PodHostname { hostname: "podFoo".to_owned(), domain: domain.to_owned() };
            let content = managed_hosts(&ips, &name, &aliases(added));
            assert_eq!(String::from_utf8(content).unwrap(), [head, &expected].concat());
        }
    }

    /// `TestNodeHostsFileContent`.
    #[test]
    fn a_pod_on_the_nodes_network_has_the_nodes_names() {
        let node = "# hosts file for testing.\n127.0.0.1\tlocalhost\n123.45.67.89\tsome.domain\n";
        let head = "# Kubernetes-managed hosts file (host network).\n";
        let cases: [(&[Alias], String); 3] =
            [(&[], String::new()), (&TWO[..1], ADDED.to_owned()), (&TWO, [ADDED, ADDED_TOO].concat())];
        for (added, expected) in cases {
            let content = String::from_utf8(node_hosts(node.as_bytes(), &aliases(added))).unwrap();
            assert_eq!(content, [head, node, &expected].concat());
        }
    }
}
