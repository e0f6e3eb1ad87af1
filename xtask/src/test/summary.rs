//! The numbers in the summaries that test programs print.

/// Tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that failed.
    pub(crate) failed: u64,
    /// Those that were not run.
    pub(crate) ignored: u64,
}

impl Counts {
    /// Adds another run's.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { passed, failed, ignored } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
    }

    /// Adds what one line of output says: `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
    /// Every other line says nothing.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(summary) = line.strip_prefix("test result: ") else { return };
        let Some((_, numbers)) = summary.split_once(". ") else { return };
        for part in numbers.split(';') {
            let Some((number, outcome)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match outcome {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up_and_other_lines_do_not() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "  test result: FAILED. 9 passed; 9 failed; 0 ignored",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s",
            "test result: ok.",
        ] {
            counts.read(line);
        }
        assert_eq!(counts, Counts { passed: 7, failed: 2, ignored: 1 });
    }
}
