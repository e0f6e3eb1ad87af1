//! Waiting for what must come about.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two questions: most of them start a program.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer, and ends the test if there is none in time; an `Err` is what is
/// missing still.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(missing) if Instant::now() > deadline => {
                panic!("{what} did not come about within {} s: {missing}", limit.as_secs())
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// A condition as [`until`] asks for it.
pub(crate) fn holds(condition: bool, missing: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(missing()) }
}
