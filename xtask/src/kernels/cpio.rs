//! An archive in the form that a kernel unpacks when it boots (cpio's "newc",
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::io::{self, Write};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Entries, names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Writes an archive.
#[derive(Debug)]
pub(super) struct Archive<W> {
    to: W,
    number: u32,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub(super) fn new(to: W) -> Self {
        Self { to, number: 0 }
    }

    /// Adds a folder; the one that it is in must be there.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// Adds a file that may be run; its folder must be there.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, contents)
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.number = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.number += 1;
        let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, owner, group, links, time, size, devices of the file's and of its own, length of
        // the name, check sum.
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            header += &format!("{field:08x}");
        }
        let mut head = header.into_bytes();
        head.extend(path.as_bytes());
        head.push(0);
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        self.to.write_all(&head)?;
        self.to.write_all(contents)?;
        let padding = contents.len().next_multiple_of(ALIGNMENT) - contents.len();
        self.to.write_all(&[0; ALIGNMENT][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_kernels_form() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.folder("bin").unwrap();
        archive.file("bin/a", b"12345").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // Header of 110 bytes, name of 4, to a multiple of 4; then the next.
        assert_eq!(&text[110..116], "bin\0\0\0");
        assert_eq!(&text[116..122], "070701");
        assert_eq!(&text[116 + 54..116 + 62], "00000005", "size of the contents");
        assert!(text.contains("bin/a\0") && text.contains("12345\0\0\0"));
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
    }
}
