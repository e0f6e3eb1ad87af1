//! Whether something was made from what it would be made from now.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::ClusterError;

/// A file that says what something was made from. It is written last, so that what was begun and
/// not finished has none.
#[derive(Debug)]
pub(super) struct Stamp {
    path: PathBuf,
    text: String,
}

impl Stamp {
    /// The stamp `path` of something that is made from these parts.
    pub(super) fn new(path: PathBuf, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With their lengths: what ends one part must not begin the next.
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let text = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path, text }
    }

    /// Whether the thing is as it would be made now.
    pub(super) fn holds(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    /// Says that the thing is made.
    pub(super) fn write(&self) -> Result<(), ClusterError> {
        fs::write(&self.path, &self.text).map_err(ClusterError::file("write", &self.path))
    }
}

/// Removes a folder if it is there.
pub(super) fn clear(folder: &Path) -> Result<(), ClusterError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(ClusterError::file("remove", folder)),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn a_stamp_holds_for_the_same_parts_alone() {
        let path = env::temp_dir().join(format!("enforcer-stamp-of-{}", process::id()));
        let stamp = Stamp::new(path.clone(), &[b"ab", b"c"]);
        assert!(!stamp.holds());
        stamp.write().unwrap();
        assert!(stamp.holds());
        assert!(!Stamp::new(path.clone(), &[b"a", b"bc"]).holds());
        fs::remove_file(path).unwrap();
    }
}
