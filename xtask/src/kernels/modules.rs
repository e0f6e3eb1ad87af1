//! The modules that a machine needs, in the order in which they can be loaded.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use super::{KernelsError, package::Kernel};
use crate::process::{self, Purpose};

/// What the laboratory, its proxies and the tests of other devices ask for. Those that a kernel has
/// built in are no modules of it, and not missing.
const WANTED: [&str; 26] = [
    "veth",
    "bridge",
    "br_netfilter",
    "dummy",
    "vxlan",
    "macvlan",
    "ipvlan",
    "8021q",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "nf_tables",
    "nf_conntrack_netlink",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_numgen",
    "nft_reject_inet",
    "nft_redir",
    "nft_fib_inet",
    "nft_limit",
    "ip_vs",
    "ip_vs_rr",
    "netkit",
];

/// Names and contents of the modules.
pub(super) fn needed(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>, KernelsError> {
    let list = kernel.modules.join("modules.dep");
    let list = fs::read_to_string(&list).map_err(KernelsError::file("read", &list))?;
    order(&list)
        .into_iter()
        .map(|path| Ok((name(path), unpack(&kernel.modules.join(path))?)))
        .collect()
}

/// A module as the kernel takes it.
fn unpack(path: &Path) -> Result<Vec<u8>, KernelsError> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).map_err(KernelsError::file("read", path));
    }
    let purpose = Purpose::new("xz", "remove target/kernels and repeat");
    let output = process::output(Command::new("xz").arg("-dc").arg(path), &purpose)?;
    if !output.status.success() {
        return Err(process::quiet_failure(&output, &purpose).into());
    }
    Ok(output.stdout)
}

/// Name of a module by its file: `kernel/net/8021q/8021q.ko.xz`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Paths of what is wanted and what that depends on, which comes before.
fn order(list: &str) -> Vec<&str> {
    let modules: BTreeMap<String, (&str, Vec<&str>)> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect())))
        .collect();
    let mut ordered = Vec::new();
    for wanted in WANTED {
        let Some((path, needs)) = modules.get(wanted) else { continue };
        // All that it depends on is listed, the deepest last.
        for path in needs.iter().rev().chain([path]) {
            if !ordered.contains(path) {
                ordered.push(*path);
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_depends_on_comes_before_it() {
        let list = "kernel/a/veth.ko:\nkernel/b/br_netfilter.ko.xz: kernel/b/bridge.ko.xz \
                    kernel/c/stp.ko.xz kernel/c/llc.ko.xz\nkernel/b/bridge.ko.xz: kernel/c/stp.ko.xz \
                    kernel/c/llc.ko.xz\nkernel/c/stp.ko.xz: kernel/c/llc.ko.xz\n\
                    kernel/c/llc.ko.xz:\nkernel/d/unwanted.ko:\nkernel/n/nf-tables.ko:\n";
        let names: Vec<String> = order(list).into_iter().map(name).collect();
        assert_eq!(names, ["veth", "llc", "stp", "bridge", "br_netfilter", "nf_tables"]);
    }
}
