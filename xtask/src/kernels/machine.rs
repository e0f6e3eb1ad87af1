//! One emulated machine: it boots, says on its console how the tests go, and ends by itself.

use std::{path::Path, process::Command, time::Instant};

use super::{KernelsError, initrd, package::Kernel};
use crate::{
    console,
    process::{self, Purpose},
    test::Counts,
};

/// After so long a machine that has not ended is ended, seconds: all test runs take half an hour.
const LIMIT: &str = "5400";
/// What the first process's own lines begin with.
const MARK: &str = "matrix: ";

/// What a machine has said so far.
#[derive(Debug, Default)]
struct Listener {
    counts: Counts,
    /// The first process has begun: what came before is the firmware's.
    booted: bool,
    /// The tests came to their end.
    done: bool,
    /// Test programs that failed, or did not get to an end.
    failed: u64,
    /// Failures beside the tests'.
    wrong: u64,
}

impl Listener {
    /// Takes a line; returns what of it is worth showing.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let line = line.trim_end_matches('\r');
        let Some(at) = line.find(MARK) else {
            self.counts.read(line);
            let empty = line.is_empty() || line.starts_with("running ");
            // The kernel's last words come after the first process's.
            return (self.booted && !self.done && !empty).then_some(line);
        };
        // The firmware does not end its last line.
        let own = &line[at + MARK.len()..];
        self.booted = true;
        self.done |= own.starts_with("done");
        self.failed += u64::from(own.contains(" ended with "));
        let wrong = ["the kernel says", "no module"];
        self.wrong += u64::from(wrong.iter().any(|what| own.starts_with(what)));
        Some(own)
    }

    /// The outcome, when the machine is off.
    fn counts(self) -> Counts {
        let mut counts = self.counts;
        // A test that takes its whole program down has no summary.
        counts.failed = counts.failed.max(self.failed) + self.wrong + u64::from(!self.done);
        counts
    }
}

/// Boots the kernel, runs the tests and returns their outcome.
pub(super) fn run(kernel: &Kernel, initrd: &Path) -> Result<Counts, KernelsError> {
    let started = Instant::now();
    let version = &kernel.version;
    let mut command = Command::new("timeout");
    command
        .args([LIMIT, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "2G"])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        // Mitigations cost emulated time and change nothing that is tested here.
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
        .stdin(std::process::Stdio::null());
    let mut listener = Listener::default();
    let purpose = Purpose::new("qemu-system-x86_64", "see its lines above");
    let status = process::each_line(&mut command, &purpose, |line| {
        if let Some(line) = listener.take(line) {
            println!("[{version}] {line}");
        }
    });
    initrd::remove(initrd);
    let status = status?;
    if !status.success() {
        println!("[{version}] the machine ended with {status}");
    } else if !listener.done {
        println!("[{version}] the machine ended before the tests did");
    }
    println!("[{version}] took {}", console::seconds(started.elapsed()));
    Ok(listener.counts())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> (Vec<String>, Counts) {
        let mut listener = Listener::default();
        let shown = lines.iter().filter_map(|line| listener.take(line)).map(str::to_owned);
        (shown.collect(), listener.counts())
    }

    #[test]
    fn a_machine_is_believed_only_if_it_came_to_its_end() {
        let summary = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\r";
        let begin = "SeaBIOS\x1b[0mmatrix: Linux 6.1\r";
        let (shown, counts) = told(&["iPXE", begin, "", summary, "matrix: done after 9 s"]);
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert_eq!(shown[0], "Linux 6.1");
        assert_eq!(counts, Counts { passed: 3, failed: 0, ignored: 0 });
        let (_, counts) = told(&[begin, summary]);
        assert_eq!(counts.failed, 1, "no end");
        let crashed = "matrix: program ended with 101";
        let (_, counts) = told(&[begin, summary, crashed, "matrix: done after 9 s"]);
        assert_eq!(counts.failed, 1, "a crash without a summary");
        let failed = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured";
        let (_, counts) = told(&[begin, failed, crashed, "matrix: done after 9 s"]);
        assert_eq!(counts.failed, 2, "each once");
        let warning = "matrix: the kernel says WARNING: CPU: 0";
        let (_, counts) = told(&[begin, summary, warning, "matrix: done after 9 s"]);
        assert_eq!(counts.failed, 1, "a kernel that warns");
    }
}
