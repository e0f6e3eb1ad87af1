//! Flows from a file of JSON lines, as exporters and `-o json` write them.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use enforcer_hubble::{
    json::{self, Unknown},
    observer::{GetFlowsRequest, GetFlowsResponse},
};

use super::{ObserveError, args::FlowArgs, print::Printer, select::Wanted};
use crate::error_chain;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read flows from {}", path.display())]
pub struct FileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Prints the flows of a file that are asked for.
pub(super) fn show<W: Write, E: Write>(
    path: &Path,
    args: &FlowArgs,
    request: &GetFlowsRequest,
    wanted: &Wanted,
    printer: &mut Printer<W, E>,
) -> Result<(), ObserveError> {
    let failed = |source| FileError { path: path.to_owned(), source };
    let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(failed)?))
    };
    let select = &args.select;
    // A file is shown whole if nothing says otherwise: it has an end.
    let newest = select.last.map(|last| usize::try_from(last).unwrap_or(usize::MAX));
    let mut room = select.first.unwrap_or(u64::MAX);
    let mut held = VecDeque::new();
    for (number, line) in (1_u64..).zip(input.lines()) {
        let line = line.map_err(failed)?;
        let response: GetFlowsResponse = match json::from_str(&line, Unknown::Skip) {
            Ok(response) => response,
            Err(error) => {
                if !args.silent_errors {
                    super::server::warn(&format!("line {number}: {}", error_chain(&error)));
                }
                continue;
            }
        };
        if !wanted.has(&response, request) {
            continue;
        }
        match newest {
            Some(0) => {}
            Some(newest) => {
                if held.len() == newest {
                    held.pop_front();
                }
                held.push_back(response);
            }
            None if room == 0 => break,
            None => {
                room -= 1;
                printer.flows(&response)?;
            }
        }
    }
    for response in &held {
        printer.flows(response)?;
    }
    printer.finish()?;
    Ok(())
}
