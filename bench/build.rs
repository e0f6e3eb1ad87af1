//! Puts the baseline programs into the benchmark.

use std::{env, path::PathBuf, process::exit};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = manifest.join("../target/bpf/baseline.o");
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error=the baseline object {} is missing: run `cargo xtask build-ebpf` first",
            object.display()
        );
        exit(0);
    }
    println!("cargo::rustc-env=ENFORCER_BASELINE_OBJECT_PATH={}", object.display());
}
