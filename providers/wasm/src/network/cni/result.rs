//! What a result says of a pod (section 5 of the CNI specification).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct AddResult {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    /// The namespace that it is in; empty for the node's.
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    address: IpNet,
    /// The place of its interface in the list.
    interface: Option<usize>,
}

/// The addresses of interfaces in the pod's namespace, in order, the first of each family.
pub(super) fn pod_ips(result: &Value) -> Result<Vec<IpAddr>, String> {
    let wrong = |error: serde_json::Error| format!("a result that is not understood: {error}");
    let AddResult { interfaces, ips } = AddResult::deserialize(result).map_err(wrong)?;
    let is_pods = |ip: &&Ip| {
        let interface = ip.interface.and_then(|place| interfaces.get(place));
        interface.is_none_or(|interface| !interface.sandbox.is_empty())
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in ips.iter().filter(is_pods).map(|ip| ip.address.addr()) {
        if !found.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
            found.push(ip);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_own_addresses_count_one_of_each_family() {
        let interfaces = json!([{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}]);
        for (ips, found) in [
            (json!([{"address": "10.1.0.2/16", "interface": 1}]), vec!["10.1.0.2"]),
            (json!([{"address": "10.1.0.2/16"}]), vec!["10.1.0.2"]),
            (json!([{"address": "10.1.0.1/16", "interface": 0}]), vec![]),
            (
                json!([
                    {"address": "fd00::2/64", "interface": 1},
                    {"address": "10.1.0.2/16", "interface": 1},
                    {"address": "10.1.0.3/16", "interface": 1},
                ]),
                vec!["fd00::2", "10.1.0.2"],
            ),
        ] {
            let result = json!({"cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips});
            let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(pod_ips(&result), Ok(found), "{result}");
        }
        assert_eq!(pod_ips(&json!({})), Ok(vec![]));
        assert!(pod_ips(&json!({"ips": [{"address": "here"}]})).is_err());
    }
}
