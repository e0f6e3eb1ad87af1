//! What the API server last said, on disk: enforced at boot while the server cannot be reached.
//!
//! The file's time of change is when its content was last known to be true: it is moved on while
//! the server is there, so that the age of what it says of other nodes' pods is known. What is in it
//! is nothing secret, yet nobody's business: only root may read it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Deserialize, Serialize};

use super::saved_services::{SavedService, SavedSlice};
use crate::{
    apiserver::ApiServer,
    cluster::{
        Remembered,
        event::{
            EndpointSlice, Labels, NamedPort, Namespace, ObjectKey, Pod, Protocol, Service,
            Workload,
        },
    },
};

/// Name of the file in the state directory.
pub const FILE: &str = "cluster.json";
/// What the file says it is.
const FORMAT: &str = "enforcer cluster state";
/// Raised when an older agent could not read it rightly.
const VERSION: u32 = 1;
/// No node's state is nearly as large.
const MOST: u64 = 1 << 30;

/// Why saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error(
        "the saved state {} cannot be read: {error}; it is not used, and written anew when the API \
         server has been read",
        file.display()
    )]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It says nothing of use.
    #[error(
        "the saved state {} is of no use: {reason}; it is not used, and written anew when the API \
         server has been read",
        file.display()
    )]
    Useless {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Whose state it is, and of which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Node.
    pub node: String,
    /// API server.
    pub server: String,
    /// The certificate authorities that it is trusted by: servers of many clusters have the same
    /// address.
    pub authorities: Vec<String>,
    /// The kernel's number of this boot.
    pub boot: String,
}

impl Identity {
    /// Of this boot of a node.
    #[must_use]
    pub fn here(node: &str, api: &ApiServer) -> Self {
        // Without it no boot is the same as another: then addresses are not believed.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            node: node.to_owned(),
            server: api.url().to_owned(),
            authorities: api.authorities().to_vec(),
            boot: boot.trim().to_owned(),
        }
    }

    /// Whether these authorities may be the same cluster's. A bundle changes when one of them is
    /// replaced: for a time it has both.
    fn may_trust(&self, authorities: &[String]) -> bool {
        let none = self.authorities.is_empty() && authorities.is_empty();
        none || authorities.iter().any(|one| self.authorities.contains(one))
    }
}

/// Where an agent keeps what it needs after a restart.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// What survives a reboot.
    pub state: &'a Path,
    /// What does not.
    pub run: &'a Path,
}

/// Saved state.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// When it was last known to be true.
    pub confirmed: SystemTime,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods of this node. After another boot they have no addresses: theirs went with their
    /// sandboxes, and another pod may have them.
    pub local: Vec<Pod>,
    /// Pods of other nodes.
    pub remote: Vec<Pod>,
    /// Services.
    pub services: Vec<Service>,
    /// Slices of endpoints that are processes of this node.
    pub slices: Vec<EndpointSlice>,
}

impl Saved {
    /// Without pods of which something else is in force.
    #[must_use]
    pub fn without(mut self, pods: &BTreeSet<ObjectKey>) -> Self {
        for of in [&mut self.local, &mut self.remote] {
            of.retain(|pod| !pods.contains(&pod.key));
        }
        self
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Content<Policy> {
    format: String,
    version: u32,
    node: String,
    server: String,
    #[serde(default)]
    authorities: Vec<String>,
    boot: String,
    policies: Vec<Policy>,
    namespaces: Vec<SavedNamespace>,
    local: Vec<SavedPod>,
    remote: Vec<SavedPod>,
    // Earlier agents wrote none.
    #[serde(default)]
    services: Vec<SavedService>,
    #[serde(default)]
    slices: Vec<SavedSlice>,
}

#[derive(Serialize, Deserialize)]
struct SavedNamespace {
    name: String,
    labels: Labels,
}

#[derive(Serialize, Deserialize)]
struct SavedPod {
    namespace: String,
    name: String,
    uid: String,
    labels: Labels,
    addresses: Vec<IpAddr>,
    host_network: bool,
    #[serde(default)]
    terminating: bool,
    started: i64,
    ports: Vec<SavedPort>,
    node: Option<String>,
    /// Kind and name.
    #[serde(default)]
    workload: Option<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct SavedPort {
    name: String,
    protocol: SavedProtocol,
    number: u16,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum SavedProtocol {
    Tcp,
    Udp,
    Sctp,
}

impl From<&Pod> for SavedPod {
    fn from(pod: &Pod) -> Self {
        let Pod { key, uid, labels, addresses, host_network, terminating, .. } = pod;
        let Pod { started, ports, node, workload, .. } = pod;
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.to_string(),
            labels: labels.clone(),
            addresses: addresses.clone(),
            host_network: *host_network,
            terminating: *terminating,
            started: *started,
            ports: ports.iter().map(SavedPort::from).collect(),
            node: node.as_deref().map(str::to_owned),
            workload: workload.as_ref().map(|one| (one.kind.to_string(), one.name.to_string())),
        }
    }
}

impl From<Protocol> for SavedProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<SavedProtocol> for Protocol {
    fn from(protocol: SavedProtocol) -> Self {
        match protocol {
            SavedProtocol::Tcp => Self::Tcp,
            SavedProtocol::Udp => Self::Udp,
            SavedProtocol::Sctp => Self::Sctp,
        }
    }
}

impl From<&NamedPort> for SavedPort {
    fn from(port: &NamedPort) -> Self {
        let NamedPort { name, protocol, number } = port;
        Self { name: name.to_string(), protocol: (*protocol).into(), number: *number }
    }
}

impl SavedPod {
    /// The pod. Finished ones are not saved.
    fn pod(self) -> Pod {
        let Self { namespace, name, uid, labels, addresses, ports, node, .. } = self;
        let Self { host_network, terminating, started, workload, .. } = self;
        Pod {
            key: ObjectKey { namespace: namespace.into(), name: name.into() },
            uid: uid.into(),
            labels,
            addresses,
            host_network,
            finished: false,
            terminating,
            started,
            containers_started: None,
            ports: ports.into_iter().map(SavedPort::port).collect(),
            node: node.map(Arc::from),
            workload: workload
                .map(|(kind, name)| Workload { kind: kind.into(), name: name.into() }),
        }
    }
}

impl SavedPort {
    fn port(self) -> NamedPort {
        let Self { name, protocol, number } = self;
        NamedPort { name: name.into(), protocol: protocol.into(), number }
    }
}

/// What is to be in the file. The policies are [`NetworkPolicy`] objects, written or to be written.
///
/// # Errors
/// Never, as far as is known: all of it has a form in JSON.
pub fn encode(
    whose: &Identity,
    policies: impl Iterator<Item = impl Serialize>,
    remembered: &Remembered,
) -> Result<Vec<u8>, serde_json::Error> {
    let pods = |pods: &[Arc<Pod>]| pods.iter().map(|pod| SavedPod::from(&**pod)).collect();
    let namespaces = remembered.namespaces.iter();
    serde_json::to_vec(&Content {
        format: FORMAT.to_owned(),
        version: VERSION,
        node: whose.node.clone(),
        server: whose.server.clone(),
        authorities: whose.authorities.clone(),
        boot: whose.boot.clone(),
        policies: policies.collect(),
        namespaces: namespaces
            .map(|(name, labels)| SavedNamespace {
                name: name.to_string(),
                labels: (**labels).clone(),
            })
            .collect(),
        local: pods(&remembered.local),
        remote: pods(&remembered.remote),
        services: remembered.services.iter().map(SavedService::from).collect(),
        slices: remembered.slices.iter().map(SavedSlice::from).collect(),
    })
}

/// Writes the file so that there is, whatever happens, the old or the new one.
///
/// # Errors
/// What the system says.
pub fn write(dir: &Path, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (file, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    let written = write_new(&new, content).and_then(|()| fs::rename(&new, &file));
    if written.is_err() {
        // What is left of it would keep the room that there is none of. It may not be there.
        let _absent = fs::remove_file(&new);
    }
    written?;
    // The renaming itself is to outlast a loss of power.
    File::open(dir)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // One that an agent left behind may have other permissions.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Says that what is in the file is still true.
///
/// # Errors
/// What the system says.
pub fn confirm(dir: &Path, now: SystemTime) -> io::Result<()> {
    File::options().write(true).open(dir.join(FILE))?.set_modified(now)
}

/// Reads the file; `None` if there is none.
///
/// # Errors
/// If it is of no use here.
pub fn read(dir: &Path, whose: &Identity) -> Result<Option<Saved>, SavedError> {
    let path = dir.join(FILE);
    let unreadable = |error| SavedError::Read { file: path.clone(), error };
    let useless = |reason: String| SavedError::Useless { file: path.clone(), reason };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() || meta.len() > MOST {
        return Err(useless("it is no file that an agent wrote".to_owned()));
    }
    let confirmed = meta.modified().map_err(unreadable)?;
    let text = io::read_to_string(file).map_err(unreadable)?;
    let damaged = |error: serde_json::Error| useless(format!("it is damaged: {error}"));
    let head: Head = serde_json::from_str(&text).map_err(damaged)?;
    if head.format != FORMAT {
        return Err(useless("it is something else".to_owned()));
    }
    if head.version != VERSION {
        let reason = format!("it is of version {}, and this agent knows {VERSION}", head.version);
        return Err(useless(reason));
    }
    let content: Content<NetworkPolicy> = serde_json::from_str(&text).map_err(damaged)?;
    if content.node != whose.node {
        return Err(useless(format!("it is the node {}'s", content.node)));
    }
    if content.server != whose.server {
        return Err(useless(format!("it comes from another API server, {}", content.server)));
    }
    if !whose.may_trust(&content.authorities) {
        return Err(useless(
            "it comes from another cluster: its certificate authority is another".to_owned(),
        ));
    }
    let same_boot = !whose.boot.is_empty() && content.boot == whose.boot;
    let local = content.local.into_iter().map(|saved| {
        let mut pod = saved.pod();
        if !same_boot {
            pod.addresses.clear();
        }
        pod
    });
    let namespaces = content.namespaces.into_iter();
    Ok(Some(Saved {
        confirmed,
        policies: content.policies,
        namespaces: namespaces
            .map(|saved| Namespace { name: saved.name.into(), labels: saved.labels })
            .collect(),
        local: local.collect(),
        remote: content.remote.into_iter().map(SavedPod::pod).collect(),
        services: content.services.into_iter().map(SavedService::service).collect(),
        slices: content.slices.into_iter().map(SavedSlice::slice).collect(),
    }))
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
