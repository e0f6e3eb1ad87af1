//! A file of libcni's result cache: which pod a sandbox is of, and what the plugins gave it.
//!
//! The form is `cniCacheV1` of libcni's `api.go`; the result in it is of the version that the
//! plugins speak: `interfaces` and `ips` since 0.3.0, `ip4` and `ip6` before.

use std::{net::IpAddr, sync::Arc};

use serde::Deserialize;

use crate::cluster::event::{ObjectKey, Sandbox};

/// `kind` of the files that are understood.
const KIND: &str = "cniCacheV1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheFile {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    result: NetworkResult,
}

#[derive(Default, Deserialize)]
struct NetworkResult {
    #[serde(default)]
    interfaces: Vec<NetworkInterface>,
    #[serde(default)]
    ips: Vec<Given>,
    ip4: Option<OldGiven>,
    ip6: Option<OldGiven>,
}

#[derive(Deserialize)]
struct NetworkInterface {
    name: String,
    /// Path of the network namespace; absent or empty for those of the host.
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Given {
    /// With a prefix length.
    address: String,
}

#[derive(Deserialize)]
struct OldGiven {
    ip: String,
}

/// Why a file says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResultError {
    /// Not JSON, or of another shape.
    #[error("it is no result of a network plugin: {0}")]
    Malformed(String),
    /// Another kind of file.
    #[error("its kind is {0:?}, not {KIND:?}")]
    Kind(String),
}

/// Reads one file; `None` for a sandbox that is no pod's, or has no address (loopback has a file
/// of its own).
pub(super) fn parse(id: &str, bytes: &[u8], told: i64) -> Result<Option<Sandbox>, ResultError> {
    let file: CacheFile =
        serde_json::from_slice(bytes).map_err(|error| ResultError::Malformed(error.to_string()))?;
    if file.kind != KIND {
        return Err(ResultError::Kind(file.kind));
    }
    let argument = |name: &str| -> Option<Arc<str>> {
        let value = file.cni_args.iter().find(|(key, _)| key == name).map(|(_, value)| value)?;
        (!value.is_empty()).then(|| Arc::from(value.as_str()))
    };
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME"))
    else {
        return Ok(None);
    };
    // Without a UID it could be an earlier pod of that name.
    let Some(uid) = argument("K8S_POD_UID") else { return Ok(None) };
    let NetworkResult { interfaces, ips, ip4, ip6 } = file.result;
    let old = [ip4, ip6].into_iter().flatten().map(|given| given.ip);
    let addresses: Vec<IpAddr> = ips
        .into_iter()
        .map(|given| given.address)
        .chain(old)
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified())
        .collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let on_host = interfaces.into_iter().filter(|interface| interface.sandbox.is_empty());
    Ok(Some(Sandbox {
        id: id.into(),
        pod: ObjectKey { namespace, name },
        uid,
        interfaces: on_host.map(|interface| interface.name.into()).collect(),
        addresses,
        told,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(result: &serde_json::Value) -> Vec<u8> {
        json!({
            "kind": "cniCacheV1",
            "containerId": "c1",
            "ifName": "eth0",
            "networkName": "net",
            "netns": "/var/run/netns/cni-1",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "p"],
                ["K8S_POD_INFRA_CONTAINER_ID", "c1"], ["K8S_POD_UID", "u1"]],
            "result": result,
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn the_bridge_plugin_names_the_hosts_end() {
        let result = json!({"cniVersion": "1.0.0", "dns": {},
            "interfaces": [{"name": "cni0", "mac": "a"}, {"name": "veth1", "mac": "b"},
                {"name": "eth0", "mac": "c", "sandbox": "/var/run/netns/cni-1"}],
            "ips": [{"interface": 2, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
                {"interface": 2, "address": "fd00::2/64"}]});
        let sandbox = parse("id", &file(&result), 7).unwrap().expect("a sandbox");
        assert_eq!((&*sandbox.pod.namespace, &*sandbox.pod.name, &*sandbox.uid), ("a", "p", "u1"));
        assert_eq!(sandbox.interfaces, ["cni0".into(), "veth1".into()] as [Arc<str>; 2]);
        assert_eq!(sandbox.addresses.len(), 2);
        assert_eq!((&*sandbox.id, sandbox.told), ("id", 7));
    }

    #[test]
    fn results_of_old_plugins_have_addresses_only() {
        let result = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}});
        let sandbox = parse("id", &file(&result), 0).unwrap().expect("a sandbox");
        assert!(sandbox.interfaces.is_empty());
        assert_eq!(sandbox.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_no_pods_sandbox_is_nothing() {
        let loopback = json!({"ips": [{"address": "127.0.0.1/8"}, {"address": "::1/128"}]});
        assert_eq!(parse("id", &file(&loopback), 0), Ok(None));
        let mut other: serde_json::Value =
            serde_json::from_slice(&file(&json!({"ips": [{"address": "10.0.0.2/24"}]}))).unwrap();
        other["cniArgs"] = json!([["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", "p"]]);
        assert_eq!(parse("id", other.to_string().as_bytes(), 0), Ok(None), "no UID");
        other["kind"] = json!("cniCacheV9");
        let error = parse("id", other.to_string().as_bytes(), 0).unwrap_err();
        assert_eq!(error, ResultError::Kind("cniCacheV9".into()));
        assert!(matches!(parse("id", b"{\"kind\":", 0), Err(ResultError::Malformed(_))));
    }
}
