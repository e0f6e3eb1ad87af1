//! Puts the kernel object into the daemon, so that one binary is all there is to ship.

use std::{env, path::PathBuf, process::exit};

fn main() {
    println!("cargo::rerun-if-env-changed=ENFORCER_BPF_OBJECT");
    let object = env::var_os("ENFORCER_BPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error=the kernel object {} is missing: run `cargo xtask build-ebpf` first",
            object.display()
        );
        exit(0);
    }
    println!("cargo::rustc-env=ENFORCER_BPF_OBJECT_PATH={}", object.display());
}

/// Where `cargo xtask build-ebpf` leaves it.
fn default_object() -> PathBuf {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    manifest.join("../target/bpf/enforcer-ebpf.o")
}
