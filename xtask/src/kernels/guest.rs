//! What every machine has, whatever its kernel: the first process, the tests, the agent, and the
//! programs that they start, with the libraries that these are linked to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{KernelsError, programs::Programs};
use crate::{
    process::{self, Purpose},
    setup,
    workspace::Workspace,
};

/// The first process.
const INIT: &str = include_str!("guest.sh");
/// What the laboratory and the tests start.
const STARTED: [&str; 4] = ["ip", "tc", "nft", "bpftool"];

/// Test runs of the programs: each loads the object, which takes an emulated machine some ten seconds,
/// so there is one of each kind.
const TEST_RUNS: [&str; 4] = [
    "connections::an_allowed_connection_and_its_replies_pass_and_the_fast_path_writes_nothing",
    "connections::ipv6_is_judged_like_ipv4",
    "parsing::tags_and_strange_frames",
    "services::a_service_is_closed_while_packets_may_leave_unjudged",
];

/// Files by their paths in the machine.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// All files; `long` has every test run, too.
pub(super) fn files(
    workspace: &Workspace,
    programs: &Programs,
    daemon: &Path,
    long: bool,
) -> Result<Files, KernelsError> {
    let mut files = Files::new();
    let mut binaries: Vec<(String, PathBuf)> = vec![
        ("bin/enforcer".to_owned(), daemon.to_owned()),
        ("tests/program".to_owned(), programs.program.clone()),
        ("tests/kernels".to_owned(), programs.kernels.clone()),
    ];
    for name in STARTED {
        let path = setup::find_program(name).ok_or(KernelsError::NoProgram(name))?;
        binaries.push((format!("bin/{name}"), path));
    }
    for (_, binary) in &binaries {
        for library in libraries(binary)? {
            let path = library.to_string_lossy().trim_start_matches('/').to_owned();
            files.insert(path, read(&library)?);
        }
    }
    for (path, binary) in binaries {
        files.insert(path, stripped(workspace, &binary)?);
    }
    let busybox = setup::find_program("busybox").ok_or(KernelsError::NoProgram("busybox"))?;
    files.insert("bin/busybox".to_owned(), read(&busybox)?);
    files.insert("init".to_owned(), INIT.as_bytes().to_vec());
    files.insert("tests/list".to_owned(), list(long).into_bytes());
    Ok(files)
}

/// The tests, a program and its arguments a line.
fn list(long: bool) -> String {
    let verifier = "program --nocapture verifier::";
    let runs = if long { String::new() } else { TEST_RUNS.join(" ") };
    format!("{verifier}\nprogram --skip verifier:: {runs}\nkernels\n")
}

fn read(path: &Path) -> Result<Vec<u8>, KernelsError> {
    fs::read(path).map_err(KernelsError::file("read", path))
}

/// A program without what only a debugger needs: most of its size.
fn stripped(workspace: &Workspace, path: &Path) -> Result<Vec<u8>, KernelsError> {
    // It writes to files only, and back and forth.
    let to = workspace.kernels().join("stripped");
    let purpose = Purpose::new(format!("strip {}", path.display()), "install binutils");
    let mut command = Command::new("strip");
    process::capture(command.arg("--strip-all").arg("-o").args([to.as_path(), path]), &purpose)?;
    let contents = read(&to)?;
    fs::remove_file(&to).map_err(KernelsError::file("remove", &to))?;
    Ok(contents)
}

/// The libraries of a program, and what starts it.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, KernelsError> {
    let purpose = Purpose::new(format!("ldd {}", program.display()), "is it a program?");
    Ok(linked(&process::capture(Command::new("ldd").arg(program), &purpose)?))
}

/// The paths in what ldd says: `libc.so.6 => /lib/libc.so.6 (0x7f)` and `/lib64/ld.so (0x7f)`.
fn linked(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            linked(text),
            [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    #[test]
    fn a_long_run_leaves_no_test_out() {
        assert!(list(false).contains("connections::"));
        assert_eq!(list(true).lines().nth(1), Some("program --skip verifier:: "));
    }
}
