//! The kernel half: built and linted for `bpfel-unknown-none` with its own compiler and flags.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self as std_process, Command},
};

use crate::{
    console,
    elf::{self, Symbol},
    process::{self, ProcessError, Purpose},
    setup::{self, SetupError, Toolchain},
    workspace::{self, Workspace},
};

const PACKAGE: &str = "enforcer-ebpf";
const TARGET: &str = "bpfel-unknown-none";

/// Compiler flags: debug information as the source of BTF, BTF itself, the instruction set that every
/// kernel from 5.1 on has, and what is cleared or copied written out. Left to itself the linker makes
/// each `memset` a call of a loop over bytes, a quarter of what an established packet costs.
const RUSTFLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--disable-expand-memcpy-in-order",
    "-Ctarget-cpu=v3",
];

/// The processors of the kernels that an object is for: aya's bindings ask, for the registers that
/// tracing programs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arch {
    /// x86-64, whose objects are embedded.
    X86_64,
    /// 64-bit ARM, for which it is checked that there could be one.
    Arm64,
}

impl Arch {
    const fn flag(self) -> &'static str {
        match self {
            Self::X86_64 => "--cfg=bpf_target_arch=\"x86_64\"",
            Self::Arm64 => "--cfg=bpf_target_arch=\"aarch64\"",
        }
    }

    /// Build folder: a new flag makes all anew, and the results have the same names.
    fn target(self, workspace: &Workspace) -> PathBuf {
        let folder = workspace.kernel_target();
        match self {
            Self::X86_64 => folder,
            Self::Arm64 => folder.with_file_name("ebpf-arm64"),
        }
    }
}

/// The profile, fixed here because the workspace's is the daemon's: a reachable panic is an
/// endless loop to the verifier, so there are no overflow checks and nothing unwinds.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

/// The programs that are built: cargo's name, and the object's name for those who embed it. The
/// daemon loads the first; the benchmarks measure it against the second.
const OBJECTS: [(&str, &str); 2] =
    [("enforcer-ebpf", "enforcer-ebpf.o"), ("baseline", "baseline.o")];

/// Why there is no kernel object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EbpfError {
    /// The toolchain is not complete.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The compiler said no.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file could not be read or written.
    #[error("cannot {operation} {path}: {reason}; check the folder's rights and free space")]
    File { operation: &'static str, path: String, reason: io::Error },
    /// The linker left no type information.
    #[error(
        "the kernel object {path} has no section {section}, so the kernel would refuse it; remove \
         target/tools and run `cargo xtask setup` to build the linker anew"
    )]
    NoSection { path: String, section: &'static str },
    /// The two architectures' objects are not the same.
    #[error(
        "the object for arm64 has {arm64} of {symbol} and that for x86-64 has {x86_64}: something in \
         enforcer-ebpf depends on the architecture"
    )]
    Differs { symbol: String, arm64: usize, x86_64: usize },
    /// The linker's output is not what it should be.
    #[error("{path} is no 64-bit little-endian ELF file; remove target/ebpf and build again")]
    NotElf { path: String },
}

/// Sets up, builds, checks the objects and puts them where those who embed them look for them.
pub(crate) fn build(workspace: &Workspace) -> Result<(), EbpfError> {
    console::step("building the kernel half");
    for (object, name) in objects(workspace, Arch::X86_64)? {
        let destination = workspace.kernel_objects().join(name);
        let size = object.len().div_ceil(1024);
        let news = if publish(workspace, &object, &destination)? { "new" } else { "unchanged" };
        console::detail(&format!("{}: {size} KiB, {news}", workspace.show(&destination)));
    }
    Ok(())
}

/// Builds the objects for arm64 as well, and checks that they are what they are for x86-64, whose
/// must be there.
pub(crate) fn check_arm64(workspace: &Workspace) -> Result<(), EbpfError> {
    for (object, name) in objects(workspace, Arch::Arm64)? {
        let path = workspace.kernel_objects().join(name);
        let own = fs::read(&path).map_err(file_error(workspace, "read", &path))?;
        let not_elf = |path: &str| EbpfError::NotElf { path: path.to_owned() };
        let arm64 = elf::symbols(&object).ok_or_else(|| not_elf(name))?;
        let x86_64 = elf::symbols(&own).ok_or_else(|| not_elf(&workspace.show(&path)))?;
        compare(&arm64, &x86_64)?;
        let loaded = x86_64.iter().filter(|symbol| is_loaded(symbol)).count();
        console::detail(&format!("{name}: {loaded} programs and maps, as for x86-64"));
    }
    Ok(())
}

/// Whether the loader makes a program or a map of it.
fn is_loaded(symbol: &Symbol<'_>) -> bool {
    [&b"classifier"[..], b"maps"].contains(&symbol.section)
}

/// Programs and maps must be there in both, once and with the same size of their definition.
fn compare(arm64: &[Symbol<'_>], x86_64: &[Symbol<'_>]) -> Result<(), EbpfError> {
    for symbol in arm64.iter().chain(x86_64).filter(|symbol| is_loaded(symbol)) {
        let [arm64, x86_64] =
            [arm64, x86_64].map(|all| all.iter().filter(|one| *one == symbol).count());
        if arm64 != x86_64 {
            let symbol = String::from_utf8_lossy(symbol.name).into_owned();
            return Err(EbpfError::Differs { symbol, arm64, x86_64 });
        }
    }
    Ok(())
}

/// Builds the objects, and looks whether they can be loaded.
fn objects(workspace: &Workspace, arch: Arch) -> Result<Vec<(Vec<u8>, &'static str)>, EbpfError> {
    let toolchain = setup::ensure(workspace)?;
    let program = workspace::cargo_program();
    let mut command = kernel_command(workspace, &toolchain, Path::new(&program), arch);
    command.args(["build", "--quiet"]);
    scope(&mut command, workspace, arch);
    process::run(&mut command, &Purpose::new("building the kernel half", "see the errors above"))?;
    let read = |(program, name)| {
        let built = arch.target(workspace).join(TARGET).join("release").join(program);
        let object = fs::read(&built).map_err(file_error(workspace, "read", &built))?;
        check_object(&object, &workspace.show(&built))?;
        Ok((object, name))
    };
    OBJECTS.into_iter().map(read).collect()
}

/// Lints the kernel half with the clippy that belongs to its compiler.
pub(crate) fn clippy(workspace: &Workspace) -> Result<(), EbpfError> {
    let toolchain = setup::ensure(workspace)?;
    let clippy = setup::ensure_clippy(&toolchain)?;
    let mut command = kernel_command(workspace, &toolchain, &clippy, Arch::X86_64);
    // Run by itself and not by cargo, it asks the variable for the cargo to use.
    command.env("CARGO", workspace::cargo_program()).args(["clippy", "--quiet"]);
    scope(&mut command, workspace, Arch::X86_64);
    command.args(["--", "--deny", "warnings"]);
    Ok(process::run(
        &mut command,
        &Purpose::new("clippy for the kernel half", "see the findings above"),
    )?)
}

fn scope(command: &mut Command, workspace: &Workspace, arch: Arch) {
    command
        .args(["--release", "--package", PACKAGE, "--target", TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(arch.target(workspace));
}

/// `program` with the kernel half's compiler, linker, flags and profile, and with nothing of the
/// contributor's settings for host builds.
fn kernel_command(
    workspace: &Workspace,
    toolchain: &Toolchain,
    program: &Path,
    arch: Arch,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace.root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_host_setting) {
            command.env_remove(name);
        }
    }
    command
        .env("RUSTC", &toolchain.compiler.rustc)
        // `-Zbuild-std` and aya's features are unstable; the compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        // Empty means none, whatever a configuration file says.
        .env("RUSTC_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", format!("{}\x1f{}", arch.flag(), RUSTFLAGS.join("\x1f")))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .envs(PROFILE);
    command
}

/// Whether a variable steers host builds and would change or break the kernel half's.
fn is_host_setting(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "LD_LIBRARY_PATH",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_ENCODED_RUSTDOCFLAGS",
    ];
    const PREFIXES: [&str; 6] = [
        "RUSTC_",
        "CARGO_TARGET_",
        "CARGO_PROFILE_",
        "CARGO_UNSTABLE_",
        "CLIPPY_",
        "CARGO_INCREMENTAL",
    ];
    workspace::describes_a_package(name)
        || NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || (name.starts_with("CARGO_BUILD_") && name != "CARGO_BUILD_JOBS")
}

/// The programs' type information is needed to load them, the other half to say where they fail.
fn check_object(object: &[u8], path: &str) -> Result<(), EbpfError> {
    let Some(sections) = elf::section_names(object) else {
        return Err(EbpfError::NotElf { path: path.to_owned() });
    };
    for section in [".BTF", ".BTF.ext"] {
        if !sections.contains(&section.as_bytes()) {
            return Err(EbpfError::NoSection { path: path.to_owned(), section });
        }
    }
    Ok(())
}

/// Replaces `destination` in one step, and only if the content differs: a new time of change
/// alone would make cargo build the daemon for nothing. Tells whether it did.
fn publish(workspace: &Workspace, object: &[u8], destination: &Path) -> Result<bool, EbpfError> {
    if fs::read(destination).is_ok_and(|present| present == object) {
        return Ok(false);
    }
    if let Some(folder) = destination.parent() {
        fs::create_dir_all(folder).map_err(file_error(workspace, "create", folder))?;
    }
    let draft = destination.with_extension(format!("{}.tmp", std_process::id()));
    fs::write(&draft, object).map_err(file_error(workspace, "write", &draft))?;
    fs::rename(&draft, destination).map_err(file_error(workspace, "replace", destination))?;
    Ok(true)
}

fn file_error(
    workspace: &Workspace,
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> EbpfError {
    let path = workspace.show(path);
    move |reason| EbpfError::File { operation, path, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_settings_do_not_reach_the_kernel_half() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "CARGO_PKG_NAME",
        ] {
            assert!(is_host_setting(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"] {
            assert!(!is_host_setting(name), "{name}");
        }
    }

    #[test]
    fn an_object_is_published_only_when_it_differs() {
        let workspace = Workspace::find();
        let folder = env::temp_dir().join(format!("enforcer-publish-{}", std_process::id()));
        let object = folder.join("deeper/object.o");
        assert!(publish(&workspace, b"one", &object).unwrap());
        let first = fs::metadata(&object).unwrap().modified().unwrap();
        assert!(!publish(&workspace, b"one", &object).unwrap());
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), first);
        assert!(publish(&workspace, b"two", &object).unwrap());
        assert_eq!(fs::read(&object).unwrap(), b"two");
        // Nothing is left of the draft.
        assert_eq!(fs::read_dir(object.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn objects_of_two_architectures_have_the_same_programs_and_maps() {
        let symbol = |name, section, size| Symbol { name, section, size };
        let map = symbol(&b"PEERS"[..], &b"maps"[..], 28);
        let program = |size| symbol(b"pod_egress", b"classifier", size);
        let helper = symbol(b"memcpy", b".text", 88);
        compare(&[map, program(8), helper], &[program(8), map]).unwrap();
        for (arm64, x86_64) in [
            (vec![map], vec![map, program(8)]),
            (vec![map, program(8)], vec![map]),
            (vec![program(8)], vec![program(16)]),
        ] {
            let error = compare(&arm64, &x86_64).unwrap_err();
            assert!(matches!(error, EbpfError::Differs { .. }), "{error}");
        }
    }

    #[test]
    fn an_object_without_type_information_is_refused() {
        let plain = elf::tests::file(&[b"", b".text", b".BTF"]);
        let error = check_object(&plain, "x.o").unwrap_err();
        assert!(matches!(error, EbpfError::NoSection { section: ".BTF.ext", .. }), "{error}");
        check_object(&elf::tests::file(&[b"", b".BTF", b".BTF.ext"]), "x.o").unwrap();
        assert!(matches!(check_object(b"no", "x.o"), Err(EbpfError::NotElf { .. })));
    }
}
