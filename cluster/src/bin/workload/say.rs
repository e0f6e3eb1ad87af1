//! Lines on standard output, for as long as somebody reads them.

use std::{
    io::{self, Write as _},
    process::exit,
};

/// Writes a line. Without a reader (the runtime closes a container's output when it ends) there is
/// nobody to tell, and nothing to go on for: the program ends, and says nothing more.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}
