//! Defaults and refusals of Services, EndpointSlices and Nodes.

use serde_json::json;

use super::*;
use crate::cluster::event::{Protocol, TargetPort};

fn meta() -> Value {
    json!({"name": "a"})
}

fn slice_of(value: &Value) -> Result<EndpointSlice, Errors> {
    slice(value, &mut Shared::default())
}

fn of(spec: Value) -> Value {
    json!({"metadata": meta(), "spec": spec})
}

#[test]
fn a_service_gets_its_defaults() {
    let service = service(&of(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}))).unwrap();
    assert_eq!((&*service.key.namespace, &*service.key.name), ("default", "a"));
    assert_eq!(service.cluster_ips, ["10.96.0.1".parse::<IpAddr>().unwrap()]);
    let port = &service.ports[0];
    assert_eq!((&*port.name, port.protocol, port.port), ("", Protocol::Tcp, 80));
    assert_eq!((&port.target, port.node_port), (&TargetPort::Number(80), None));
}

#[test]
fn services_that_the_api_server_takes_are_taken() {
    for spec in [
        json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "clusterIP": "10.96.0.1",
               "ports": [{"port": 80}]}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": "", "ports": [{"port": 80, "protocol": "SCTP", "nodePort": 30080}]}),
        json!({"type": "ExternalName", "externalName": "x.example"}),
        json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}),
    ] {
        assert!(service(&of(spec.clone())).is_ok(), "{spec}");
    }
}

#[test]
fn what_is_wrong_with_a_service_is_named() {
    let ports = |ports: Value| of(json!({"ports": ports}));
    let with = |key: &str, value: Value| of(json!({"ports": [{"port": 80}], key: value}));
    let balancer = |ingress: Value| {
        json!({"metadata": meta(), "spec": {"ports": [{"port": 80}]},
               "status": {"loadBalancer": {"ingress": [ingress]}}})
    };
    for (value, field) in [
        (of(json!({})), "spec.ports"),
        (ports(json!([{}])), "spec.ports[0].port"),
        (ports(json!([{"port": 0}])), "spec.ports[0].port"),
        (ports(json!([{"port": 70000}])), "spec.ports[0].port"),
        (ports(json!([{"port": -1}])), "spec.ports[0].port"),
        (ports(json!([{"port": 80, "nodePort": 70000}])), "spec.ports[0].nodePort"),
        (ports(json!([{"port": 80, "protocol": "tcp"}])), "spec.ports[0].protocol"),
        (ports(json!([{"port": 80, "targetPort": "-"}])), "spec.ports[0].targetPort"),
        (ports(json!([{"port": 80, "targetPort": 70000}])), "spec.ports[0].targetPort"),
        (ports(json!([{"port": 80, "name": "A"}])), "spec.ports[0].name"),
        (ports(json!([{"port": 80, "name": "a"}, {"port": 81}])), "spec.ports[1].name"),
        (
            ports(json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}])),
            "spec.ports[1].name",
        ),
        (
            ports(json!([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}])),
            "spec.ports[1].port",
        ),
        (with("type", json!("Clustered")), "spec.type"),
        (with("clusterIP", json!("10.96.0")), "spec.clusterIP"),
        (with("clusterIP", json!("127.0.0.1")), "spec.clusterIP"),
        (with("clusterIPs", json!(["10.96.0.1", "10.96.0.2"])), "spec.clusterIPs[1]"),
        (with("clusterIPs", json!(["None", "10.96.0.2"])), "spec.clusterIPs[1]"),
        (with("externalIPs", json!(["192.0.2.1", "::"])), "spec.externalIPs[1]"),
        (with("externalIPs", json!(["224.0.0.1"])), "spec.externalIPs[0]"),
        (balancer(json!({"ip": "x"})), "status.loadBalancer.ingress[0].ip"),
        (
            balancer(json!({"ip": "192.0.2.1", "ipMode": "vip"})),
            "status.loadBalancer.ingress[0].ipMode",
        ),
        (json!({"metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 80}]}}), "metadata.name"),
    ] {
        let fields: Vec<_> = service(&value).unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, [field], "{value}");
    }
    let both =
        of(json!({"clusterIP": "10.96.0.2", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}));
    assert_eq!(service(&both).unwrap_err()[0].field, "spec.clusterIP");
}

#[test]
fn a_slice_gets_its_defaults() {
    let slice = slice_of(&json!({
        "metadata": {"name": "a.b", "namespace": "n",
                     "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 80}, {"name": "all", "protocol": "UDP"}],
        "endpoints": [{"addresses": ["10.0.0.1"]},
                      {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}],
    }))
    .unwrap();
    assert_eq!((slice.service.as_deref(), &*slice.key.namespace), (Some("s"), "n"));
    assert_eq!((slice.ports[0].protocol, slice.ports[0].port), (Protocol::Tcp, Some(80)));
    assert_eq!((slice.ports[1].protocol, slice.ports[1].port), (Protocol::Udp, None));
    let states: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.serving)).collect();
    assert_eq!(states, [(true, true), (false, false)]);
}

#[test]
fn what_is_wrong_with_a_slice_is_named() {
    let of = |mut value: Value| {
        value["metadata"] = meta();
        value
    };
    let endpoint = |kind: &str, addresses: Value| {
        of(json!({"addressType": kind, "endpoints": [{"addresses": addresses}]}))
    };
    let port = |port: Value| of(json!({"addressType": "IPv4", "ports": [{}, port]}));
    for (value, field) in [
        (of(json!({})), "addressType"),
        (of(json!({"addressType": "IP"})), "addressType"),
        (endpoint("IPv4", json!([])), "endpoints[0].addresses"),
        (endpoint("IPv4", json!(["10.0.0"])), "endpoints[0].addresses[0]"),
        (endpoint("IPv4", json!(["10.0.0.1", "fd00::1"])), "endpoints[0].addresses[1]"),
        (endpoint("IPv6", json!(["10.0.0.1"])), "endpoints[0].addresses[0]"),
        (endpoint("IPv4", json!(["0.0.0.0"])), "endpoints[0].addresses[0]"),
        (endpoint("IPv6", json!(["fe80::1"])), "endpoints[0].addresses[0]"),
        (port(json!({"name": "a", "port": 0})), "ports[1].port"),
        (port(json!({"name": "a", "port": 70000})), "ports[1].port"),
        (port(json!({"name": "a", "protocol": "x"})), "ports[1].protocol"),
        (port(json!({})), "ports[1].name"),
        (port(json!({"name": "A"})), "ports[1].name"),
    ] {
        let fields: Vec<_> = slice_of(&value).unwrap_err().into_iter().map(|e| e.field).collect();
        assert_eq!(fields, [field], "{value}");
    }
    assert!(
        slice_of(&endpoint("FQDN", json!(["a.example"]))).is_ok_and(|s| s.endpoints.is_empty())
    );
}

#[test]
fn a_nodes_addresses_are_addresses() {
    let of = |kind: &str, address: &str| json!({"metadata": meta(), "status": {"addresses": [{"type": kind, "address": address}]}});
    assert_eq!(node(&of("InternalIP", "192.0.2.1")).unwrap().primary.len(), 1);
    assert!(node(&of("Hostname", "w1")).unwrap().addresses.is_empty());
    let errors = node(&of("InternalIP", "w1")).unwrap_err();
    assert_eq!(errors[0].field, "status.addresses[0].address");
    assert!(node(&json!({"metadata": {"name": "A"}})).is_err());
}
