//! A real Kubernetes in namespaces of one machine: etcd, API server, controller manager and
//! scheduler in one network namespace, and nodes with kubelet, containerd, runc, a bridge CNI and
//! kube-proxy in a set of namespaces each.
//!
//! [`Assets`] are what it is made of, built or downloaded once. A [`Cluster`] is the one that runs:
//! there is at most one on a machine, since its names and addresses are fixed. [`Upstream`] are
//! Kubernetes' own tests, which can be run in it, and [`Hubble`] its own client. No state is kept of
//! what runs: it is read off the system, so that [`Cluster::down`] also removes what a run that was
//! killed has left.

mod assets;
mod cgroups;
mod cluster;
mod control_plane;
mod error;
mod image;
mod interrupt;
mod kubeconfig;
mod layout;
mod network;
mod node;
mod node_config;
mod pki;
mod plan;
mod processes;
mod program;
mod progress;
mod suite;

pub use assets::{Assets, HOST_PACKAGES, Hubble, Upstream};
pub use cluster::Cluster;
pub use error::ClusterError;
pub use image::{Architecture, Image, ImageError};
pub use interrupt::end_on_signals;
pub use layout::Layout;
pub use plan::{Families, Options, ProxyMode};
pub use progress::{Progress, Quiet};
pub use suite::{Spec, Wanted};
