//! What the tasks say while they work: one line a step, on the standard error stream.

use std::{
    env,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

/// Says what is done now. Bold on a terminal, plain elsewhere and with `NO_COLOR`.
pub(crate) fn step(text: &str) {
    if stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        eprintln!("\x1b[1m==> {text}\x1b[0m");
    } else {
        eprintln!("==> {text}");
    }
}

/// Adds a fact to the step before.
pub(crate) fn detail(text: &str) {
    eprintln!("    {text}");
}

/// A duration as people say it: `850 ms`, `12.3 s`, `2 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole >= 60 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else if duration.as_millis() >= 1000 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(85)), "85 ms");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}
