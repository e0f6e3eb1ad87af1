//! What set-up found the last time, and whether it is still true.
//!
//! A text file of `name=value` lines. It names the versions this program asks for, so that a new
//! version of the program looks again, and size and time of every program it points to, so that
//! an upgrade of one of them does as well.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{Toolchain, compiler::Compiler, linker, llvm::Llvm, version::Version};

/// Changes with the meaning of the lines.
const FORMAT: u32 = 1;

/// The findings in the stamp, if they are still true.
pub(super) fn read(stamp: &Path) -> Option<Toolchain> {
    let text = fs::read_to_string(stamp).ok()?;
    let toolchain = parse(&text)?;
    (text == render(&toolchain)?).then_some(toolchain)
}

/// Writes the stamp.
pub(super) fn write(stamp: &Path, toolchain: &Toolchain) -> io::Result<()> {
    let text = render(toolchain)
        .ok_or_else(|| io::Error::other("a program that was just found is gone again"))?;
    if let Some(folder) = stamp.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(stamp, text)
}

/// The stamp's text for the machine as it is now; `None` when a program is not there.
fn render(toolchain: &Toolchain) -> Option<String> {
    let Toolchain { compiler, llvm, linker: linker_program } = toolchain;
    let Compiler { rustc, sysroot, version, llvm: compiler_llvm } = compiler;
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    Some(format!(
        "format={FORMAT}\nbpf-linker={}\nrustc={}\nrustc-file={}\nsysroot={}\ncore={}\n\
         version={version}\ncompiler-llvm={compiler_llvm}\nllvm={}\nllvm-version={}\n\
         linker={}\nlinker-file={}\n",
        linker::VERSION,
        rustc.display(),
        identity(rustc)?,
        sysroot.display(),
        identity(&core)?,
        llvm.prefix.display(),
        llvm.version,
        linker_program.display(),
        identity(linker_program)?,
    ))
}

fn parse(text: &str) -> Option<Toolchain> {
    let field = |name: &str| {
        text.lines().filter_map(|line| line.split_once('=')).find(|(n, _)| *n == name).map(|f| f.1)
    };
    Some(Toolchain {
        compiler: Compiler {
            rustc: PathBuf::from(field("rustc")?),
            sysroot: PathBuf::from(field("sysroot")?),
            version: Version::parse(field("version")?)?,
            llvm: Version::parse(field("compiler-llvm")?)?,
        },
        llvm: Llvm {
            prefix: PathBuf::from(field("llvm")?),
            version: Version::parse(field("llvm-version")?)?,
        },
        linker: PathBuf::from(field("linker")?),
    })
}

/// Size in bytes and time of change in nanoseconds.
fn identity(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{}@{}", metadata.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn a_stamp_holds_until_a_program_changes() {
        let folder = env::temp_dir().join(format!("enforcer-stamp-{}", process::id()));
        let core = folder.join("lib/rustlib/src/rust/library/core/src");
        fs::create_dir_all(&core).unwrap();
        fs::write(core.join("lib.rs"), "//! core").unwrap();
        let (rustc, linker) = (folder.join("rustc"), folder.join("bpf-linker"));
        fs::write(&rustc, "1").unwrap();
        fs::write(&linker, "1").unwrap();
        let toolchain = Toolchain {
            compiler: Compiler {
                rustc,
                sysroot: folder.clone(),
                version: Version::new(1, 96, 0),
                llvm: Version::new(22, 1, 8),
            },
            llvm: Llvm { prefix: folder.clone(), version: Version::new(22, 1, 8) },
            linker: linker.clone(),
        };
        let stamp = folder.join("deeper/setup.stamp");
        assert_eq!(read(&stamp), None);
        write(&stamp, &toolchain).unwrap();
        assert_eq!(read(&stamp), Some(toolchain));
        fs::write(&linker, "another one").unwrap();
        assert_eq!(read(&stamp), None);
        fs::remove_file(&linker).unwrap();
        assert_eq!(read(&stamp), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
