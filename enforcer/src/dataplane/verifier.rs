//! What the running kernel's verifier says of each program: whether it takes it, and how much work it
//! had, so that growth is seen before a kernel refuses.

use std::time::{Duration, Instant};

use aya::{EbpfError, EbpfLoader};
use enforcer_common::abi::PROG_NODE_INPUT;

use super::{
    attach::PROGRAMS,
    bpf::{self, Kind},
    code::Code,
    input::Layout,
    object::OBJECT,
    sys,
};

/// What the verifier says of a program that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub program: &'static str,
    /// Instructions that it went through, every way counted; it gives up at a million.
    pub instructions: u32,
    /// Bytes of stack of each function; those of a chain of calls may have 512 together.
    pub frames: Vec<u32>,
    /// How long the load took, compilation included.
    pub took: Duration,
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The maps.
    #[error("the object's maps cannot be made")]
    Maps(#[from] Box<EbpfError>),
    /// The object is not what it should be.
    #[error("the program {0} cannot be put together: {1}")]
    Object(&'static str, String),
    /// The kernel has no programs of this kind.
    #[error("the kernel has no such programs as {0}")]
    NoSuchKind(&'static str),
    /// The verifier refuses the program.
    #[error("the kernel refuses the program {program} ({source}): {log}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What the verifier said.
        log: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The log is none that we know.
    #[error("the verifier's statistics are not understood: {0}")]
    Log(String),
}

/// Has the kernel verify each program, attached nowhere.
///
/// # Errors
/// If the maps cannot be made.
pub fn verify_all() -> Result<Vec<Result<Verified, VerifyError>>, VerifyError> {
    sys::raise_memlock();
    let layout = Layout::read();
    let mut loader = EbpfLoader::new();
    layout.put(&mut loader);
    let ebpf = loader.load(OBJECT).map_err(Box::new)?;
    let classifiers = PROGRAMS.map(|program| (program, Kind::Classifier));
    let all = classifiers.into_iter().chain([(PROG_NODE_INPUT, Kind::Netfilter)]);
    Ok(all
        .map(|(program, kind)| {
            let code =
                Code::link(&ebpf, program).map_err(|why| VerifyError::Object(program, why))?;
            verify(program, kind, &code)
        })
        .collect())
}

fn verify(program: &'static str, kind: Kind, code: &Code) -> Result<Verified, VerifyError> {
    let started = Instant::now();
    match bpf::verify(kind, code) {
        Ok(log) => read(program, &log, started.elapsed()).ok_or(VerifyError::Log(log)),
        // Unknown types are refused before the verifier has a word.
        Err((_, log)) if log.is_empty() && kind == Kind::Netfilter => {
            Err(VerifyError::NoSuchKind(program))
        }
        Err((source, log)) => Err(VerifyError::Refused { program, log, source }),
    }
}

/// Reads `stack depth 168+0+8` and `processed 184605 insns (limit 1000000) ...`.
fn read(program: &'static str, log: &str, took: Duration) -> Option<Verified> {
    let after = |words: &str| log.lines().find_map(|line| line.strip_prefix(words));
    let frames = after("stack depth ")?.split_whitespace().next()?;
    let frames = frames.split('+').map(|frame| frame.parse().ok()).collect::<Option<_>>()?;
    let instructions = after("processed ")?.split(' ').next()?.parse().ok()?;
    Some(Verified { program, instructions, frames, took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_statistics_are_read() {
        let log = "verification time 12 usec\nstack depth 168+0+8\nprocessed 1846 insns (limit \
                   1000000) max_states_per_insn 51\n";
        let verified = read("one", log, Duration::ZERO).unwrap();
        assert_eq!((verified.instructions, &*verified.frames), (1846, &[168, 0, 8][..]));
        assert_eq!(read("one", "processed 1 insns", Duration::ZERO), None);
    }
}
