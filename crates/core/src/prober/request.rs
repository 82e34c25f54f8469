//! From what a user wrote to what is to be asked (upstream: `pkg/probe/util.go`, `pkg/probe/http/request.go`).

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::expansion::{expand, syntax_wrap};
use crate::ports::{GrpcCheck, HttpGet, Scheme, TcpConnect};

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeRequest {
    Exec(Vec<String>),
    Http(HttpGet),
    Tcp(TcpConnect),
    Grpc(GrpcCheck),
}

/// What a probe of this container asks; a message if it can ask nothing.
pub(super) fn probe_request(
    probe: &Probe,
    container: &Container,
    pod_ip: Option<&str>,
) -> Result<ProbeRequest, String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        return Ok(ProbeRequest::Exec(expand_command(command, container)));
    }
    if let Some(http) = &probe.http_get {
        return http_get_request(http, container, pod_ip).map(ProbeRequest::Http);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = resolve_container_port(&tcp.port, container)?;
        let host = host(tcp.host.as_deref(), pod_ip)?;
        return Ok(ProbeRequest::Tcp(TcpConnect { host, port }));
    }
    if let Some(grpc) = &probe.grpc {
        return Ok(ProbeRequest::Grpc(GrpcCheck {
            host: host(None, pod_ip)?,
            port: port_number(grpc.port)?,
            service: grpc.service.clone().unwrap_or_default(),
            tls: grpc.mode.as_deref() == Some("TLS"),
        }));
    }
    Err("missing probe handler: one of exec, httpGet, tcpSocket and grpc is needed".to_owned())
}

/// The GET of a probe or of a hook (`NewRequestForHTTPGetAction`).
pub fn http_get_request(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: Option<&str>,
) -> Result<HttpGet, String> {
    let scheme = action.scheme.as_deref().unwrap_or_default();
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "" | "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(format!("unsupported protocol scheme {scheme:?}")),
    };
    let headers = action.http_headers.iter().flatten();
    Ok(HttpGet {
        scheme,
        port: resolve_container_port(&action.port, container)?,
        host: host(action.host.as_deref(), pod_ip)?,
        path: action.path.clone().unwrap_or_default(),
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        http2: action.protocol.as_deref() == Some("HTTP2"),
    })
}

fn host(own: Option<&str>, pod_ip: Option<&str>) -> Result<String, String> {
    let host = own.filter(|host| !host.is_empty()).or(pod_ip.filter(|ip| !ip.is_empty()));
    host.map(str::to_owned).ok_or_else(|| "the pod has no address".to_owned())
}

/// A port by number, or by the name that the container gives it (`ResolveContainerPort`).
fn resolve_container_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => port_number(*number),
        IntOrString::String(name) => {
            let found = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            port_number(found.ok_or_else(|| format!("port {name:?} not found"))?.container_port)
        }
    }
}

fn port_number(number: i32) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|n| *n != 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Variables that the container is given by value; no others (`ExpandContainerCommandOnlyStatic`).
fn expand_command(command: &[String], container: &Container) -> Vec<String> {
    let lookup = |name: &str| {
        // Of several variables of one name the last one counts.
        let found = container.env.iter().flatten().rev().find(|var| var.name == name);
        found.map_or_else(|| syntax_wrap(name), |var| var.value.clone().unwrap_or_default())
    };
    command.iter().map(|word| expand(word, lookup)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IP: Option<&str> = Some("10.0.0.1");

    fn container() -> Container {
        serde_json::from_value(json!({
            "name": "c", "image": "i",
            "ports": [{"name": "found", "containerPort": 93}, {"name": "odd", "containerPort": 0}],
            "env": [{"name": "A", "value": "old"}, {"name": "A", "value": "script"},
                {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }))
        .unwrap()
    }

    fn request(probe: Value, ip: Option<&str>) -> Result<ProbeRequest, String> {
        probe_request(&serde_json::from_value(probe).unwrap(), &container(), ip)
    }

    #[test]
    fn ports_are_numbers_or_names_of_the_container() {
        let cases = [
            (json!(-1), Err("invalid port number: -1")),
            (json!(0), Err("invalid port number: 0")),
            (json!(65536), Err("invalid port number: 65536")),
            (json!(""), Err("port \"\" not found")),
            (json!("-1"), Err("port \"-1\" not found")),
            (json!("not-found"), Err("port \"not-found\" not found")),
            (json!("odd"), Err("invalid port number: 0")),
            (json!("found"), Ok(93)),
            (json!(76), Ok(76)),
        ];
        for (port, expected) in cases {
            let expected = expected.map_err(str::to_owned);
            let tcp = request(json!({"tcpSocket": {"port": port}}), IP);
            let tcp = tcp.map(|r| if let ProbeRequest::Tcp(tcp) = r { tcp.port } else { 0 });
            assert_eq!(tcp, expected, "{port}");
            let http = request(json!({"httpGet": {"port": port}}), IP);
            let http = http.map(|r| if let ProbeRequest::Http(http) = r { http.port } else { 0 });
            assert_eq!(http, expected, "{port}");
        }
    }

    #[test]
    fn the_pods_address_is_asked_unless_another_is_named() {
        let http = |action: Value, ip| match request(json!({"httpGet": action}), ip) {
            Ok(ProbeRequest::Http(get)) => {
                format!("{}://{} {} {}", get.scheme.as_str(), get.host, get.port, get.path)
            }
            other => format!("{other:?}"),
        };
        assert_eq!(http(json!({"port": 80}), IP), "http://10.0.0.1 80 ");
        assert_eq!(http(json!({"port": 80, "host": ""}), IP), "http://10.0.0.1 80 ");
        let other = json!({"port": 80, "host": "example.com", "path": "/x?y", "scheme": "HTTPS"});
        assert_eq!(http(other.clone(), IP), "https://example.com 80 /x?y");
        assert_eq!(http(other, None), "https://example.com 80 /x?y");
        assert_eq!(http(json!({"port": 80}), None), "Err(\"the pod has no address\")");
        assert_eq!(
            http(json!({"port": 80, "scheme": "baz"}), IP),
            "Err(\"unsupported protocol scheme \\\"baz\\\"\")"
        );
    }

    #[test]
    fn everything_that_was_written_is_asked() {
        let http = json!({"httpGet": {"port": 80, "protocol": "HTTP2", "httpHeaders": [
            {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]}});
        let Ok(ProbeRequest::Http(get)) = request(http, IP) else { panic!() };
        assert!(get.http2);
        assert_eq!(get.headers, [("X-A".into(), "1".into()), ("X-A".into(), "2".into())]);
        let grpc =
            |service: &str, tls| GrpcCheck { host: "10.0.0.1".into(), port: 5, service: service.into(), tls };
        assert_eq!(request(json!({"grpc": {"port": 5}}), IP), Ok(ProbeRequest::Grpc(grpc("", false))));
        let tls = json!({"grpc": {"port": 5, "service": "s", "mode": "TLS"}});
        assert_eq!(request(tls, IP), Ok(ProbeRequest::Grpc(grpc("s", true))));
        assert!(request(json!({"grpc": {"port": 0}}), IP).is_err());
        assert!(request(json!({}), IP).unwrap_err().starts_with("missing probe handler"));
    }

    #[test]
    fn commands_see_variables_that_have_a_value_of_their_own() {
        let exec = json!({"exec": {"command": ["/bin/bash", "-c", "some $(A) $(B) $(F)$$(A)"]}});
        let expected = ["/bin/bash", "-c", "some script $(B) $(A)"].map(str::to_owned).to_vec();
        assert_eq!(request(exec, None), Ok(ProbeRequest::Exec(expected)));
    }
}
