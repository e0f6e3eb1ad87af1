//! The program of the test images, whose reader may go at any time.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

#[test]
fn without_a_reader_it_ends_and_says_nothing() {
    // Nobody answers at that port: each try is a line.
    let mut child = Command::new(env!("CARGO_BIN_EXE_workload"))
        .args(["connect", "127.0.0.1:1", "--rate", "200"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("\"ok\":false"), "{line}");
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}
