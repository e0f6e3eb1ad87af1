//! Which pod has which endpoint, in a file beside the socket: whoever switches enforcement off for
//! a pod finds its slot there, also when no agent lives.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name of the file in the run directory.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// A pod's endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// `namespace/name`.
    pub pod: String,
    /// Slot in the kernel's maps.
    pub slot: u32,
    /// Host-side interface index.
    pub ifindex: u32,
    /// Host-side interface.
    pub interface: String,
}

/// Reads the file.
///
/// # Errors
/// If it is not there or makes no sense.
pub fn read(run_dir: &Path) -> io::Result<Vec<EndpointRecord>> {
    let text = fs::read(run_dir.join(ENDPOINTS_FILE))?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct EndpointsFile {
    path: PathBuf,
    written: Option<Vec<EndpointRecord>>,
}

impl EndpointsFile {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { path: run_dir.join(ENDPOINTS_FILE), written: None }
    }

    /// Makes it say this: as a whole, and only if it says something else.
    pub(super) fn write(&mut self, mut records: Vec<EndpointRecord>) -> io::Result<()> {
        records.sort_unstable();
        if self.written.as_ref() == Some(&records) {
            return Ok(());
        }
        let fresh = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
        serde_json::to_writer(&mut file, &records)?;
        file.write_all(b"\n")?;
        fs::rename(&fresh, &self.path)?;
        self.written = Some(records);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn record(pod: &str, slot: u32) -> EndpointRecord {
        EndpointRecord { pod: pod.into(), slot, ifindex: slot, interface: "veth1".into() }
    }

    #[test]
    fn it_is_replaced_as_a_whole_and_only_when_it_says_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EndpointsFile::new(dir.path());
        assert!(read(dir.path()).is_err());
        file.write(vec![record("b/x", 2), record("a/x", 1)]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [record("a/x", 1), record("b/x", 2)]);
        let first = fs::metadata(dir.path().join(ENDPOINTS_FILE)).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o600);
        file.write(vec![record("a/x", 1), record("b/x", 2)]).unwrap();
        let same = fs::metadata(dir.path().join(ENDPOINTS_FILE)).unwrap();
        assert_eq!(same.ino(), first.ino(), "not written again");
        file.write(Vec::new()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
