//! What comes from Debian's packages: etcd, and the nodes' root file system.

use std::{fs, process::Command, time::Instant};

use super::stamp::{self, Stamp};
use crate::{ClusterError, Layout, Progress, program};

/// containerd 2, which Kubernetes 1.36 needs, is in no older one.
const SUITE: &str = "sid";
/// Beside what every Debian has: the container runtime, what kube-proxy uses, and what one looks
/// for when something does not work.
const NODE_PACKAGES: [&str; 16] = [
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "ethtool",
    "iproute2",
    "ipset",
    "iptables",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "procps",
    "runc",
    "tcpdump",
];
/// Documents and translations are nobody's need in a node.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"];
/// Forbids the packages to start their services while they are installed.
const NO_SERVICES: &str = r#"mkdir -p "$1/usr/sbin"
printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"
chmod +x "$1/usr/sbin/policy-rc.d""#;

/// Gets etcd's program unless it is there.
pub(super) fn ensure_etcd(
    layout: &Layout,
    progress: &mut dyn Progress,
) -> Result<(), ClusterError> {
    let program = layout.program("etcd");
    if program.is_file() {
        return Ok(());
    }
    progress.step("getting etcd from Debian's package");
    let draft = layout.root().join("etcd.new");
    stamp::clear(&draft)?;
    fs::create_dir_all(&draft).map_err(ClusterError::file("create", &draft))?;
    program::capture(
        Command::new("apt-get").args(["download", "etcd-server"]).current_dir(&draft),
        "downloading the package etcd-server (are the package lists there? apt-get update)",
    )?;
    program::capture(
        Command::new("sh")
            .args(["-ec", "dpkg-deb --extract etcd-server_*.deb unpacked"])
            .current_dir(&draft),
        "unpacking the package etcd-server",
    )?;
    fs::rename(draft.join("unpacked/usr/bin/etcd"), &program)
        .map_err(ClusterError::file("write", &program))?;
    stamp::clear(&draft)
}

/// Makes the nodes' root file system unless it is there, of these very packages.
pub(super) fn ensure_node_root(
    layout: &Layout,
    progress: &mut dyn Progress,
) -> Result<(), ClusterError> {
    let root = layout.node_root();
    let packages = NODE_PACKAGES.join(",");
    let stamp = Stamp::new(
        layout.root().join("node-root.stamp"),
        &[SUITE.as_bytes(), packages.as_bytes(), NO_SERVICES.as_bytes()],
    );
    if stamp.holds() && root.is_dir() {
        return Ok(());
    }
    progress.step("making the nodes' root file system from Debian's packages (once; a minute)");
    let begun = Instant::now();
    let draft = layout.root().join("node-root.new");
    stamp::clear(&draft)?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=minbase"])
        .arg("--aptopt=Acquire::Languages \"none\"")
        // A mirror may stand still for weeks. What it has is signed all the same.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg(format!("--setup-hook={NO_SERVICES}"))
        .arg(format!("--include={packages}"))
        .arg(SUITE)
        .arg(&draft);
    program::capture(&mut command, "mmdebstrap (it needs Debian's package mirror)")?;
    stamp::clear(&root)?;
    fs::rename(&draft, &root).map_err(ClusterError::file("write", &root))?;
    stamp.write()?;
    progress.detail(&format!("made in {} s", begun.elapsed().as_secs()));
    Ok(())
}
