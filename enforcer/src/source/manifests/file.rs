//! One manifest file: whether it changed, and what its documents hold.

use std::{
    collections::HashMap,
    fs::{Metadata, OpenOptions},
    hash::Hasher,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{
    parse::{self, Document},
    text,
};
use crate::source::shared::Shared;

/// Largest file that is read, bytes. A parsed document takes many times its size.
const LARGEST: u64 = 32 << 20;
/// Time stamps come from a clock with ticks of up to 10 ms: a file that changed this shortly
/// before it was read may change again without a new stamp.
const TICKS: Duration = Duration::from_millis(50);

/// What moves when a file is written or replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            file: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// A document and the hash of its text.
pub(super) type Hashed = (u128, Arc<Document>);

/// A file as it was last read.
#[derive(Debug)]
pub(super) struct File {
    /// `None` if it must be read again whatever its stamp says.
    pub(super) stamp: Option<Stamp>,
    /// The documents, or why there are none to be had.
    pub(super) documents: Result<Vec<Hashed>, String>,
}

/// What came of reading a file.
#[derive(Debug)]
pub(super) enum Reading {
    /// It is not there (any more), or is no regular file.
    Absent,
    /// It has not changed.
    Same,
    /// It was written while it was read.
    Unsettled,
    /// The bytes are there, and the stamp if it can be trusted.
    Read(Option<Stamp>, Vec<u8>),
    /// It cannot be read.
    Failed(String),
}

/// Reads `path` unless it is as `before` says.
pub(super) fn read(path: &Path, before: Option<Stamp>) -> Reading {
    match try_read(path, before) {
        Ok(reading) => reading,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Reading::Absent,
        Err(e) => Reading::Failed(format!("cannot be read: {e}")),
    }
}

fn try_read(path: &Path, before: Option<Stamp>) -> io::Result<Reading> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Ok(Reading::Absent);
    }
    if before == Some(Stamp::of(&meta)) {
        return Ok(Reading::Same);
    }
    // Not to hang should a FIFO have taken the file's place since.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    let stamp = Stamp::of(&meta);
    if meta.len() > LARGEST {
        let reason = format!("is larger than {} MiB; split it", LARGEST >> 20);
        return Ok(Reading::Failed(reason));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    (&file).take(LARGEST + 1).read_to_end(&mut bytes)?;
    if Stamp::of(&file.metadata()?) != stamp || bytes.len() as u64 != meta.len() {
        return Ok(Reading::Unsettled);
    }
    let settled = meta
        .modified()
        .is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|age| age > TICKS));
    Ok(Reading::Read(settled.then_some(stamp), bytes))
}

/// Reads the documents, taking those whose text is known from `before`.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    before: &[Hashed],
    shared: &mut Shared,
) -> Result<Vec<Hashed>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| format!("is no UTF-8 text (byte {})", e.valid_up_to() + 1))?;
    let is_json = extension(path).is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let known: HashMap<u128, &Arc<Document>> = before.iter().map(|(h, d)| (*h, d)).collect();
    let texts = if is_json {
        if text.trim().is_empty() { Vec::new() } else { vec![text] }
    } else {
        text::documents(text)
    };
    let mut documents = Vec::with_capacity(texts.len());
    for (i, text) in texts.into_iter().enumerate() {
        let hash = hash(text.as_bytes());
        let document = match known.get(&hash) {
            Some(document) => Arc::clone(document),
            None => Arc::new(
                parse::document(text, is_json, shared)
                    .map_err(|e| format!("document {} cannot be read: {e}", i + 1))?,
            ),
        };
        documents.push((hash, document));
    }
    Ok(documents)
}

/// Whether a file of this name is a manifest: editors' and tools' own files are hidden or have
/// other endings.
pub(super) fn is_manifest(path: &Path) -> bool {
    let ending = |e: &str| ["yaml", "yml", "json"].iter().any(|x| e.eq_ignore_ascii_case(x));
    !is_hidden(path) && extension(path).is_some_and(ending)
}

/// Whether the name begins with a dot.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|e| e.to_str())
}

fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_manifests() {
        for (name, expected) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("A.JSON", true),
            ("sub/a b.yaml", true),
            (".a.yaml", false),
            ("a.yaml~", false),
            ("#a.yaml#", false),
            (".a.yaml.swp", false),
            ("yaml", false),
            ("..data", false),
            ("a.txt", false),
        ] {
            assert_eq!(is_manifest(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_document_that_did_not_change_is_not_read_again() {
        let path = Path::new("a.yaml");
        let one = parse(path, b"kind: A\n---\nkind: B\n", &[], &mut Shared::default()).unwrap();
        let two = parse(path, b"kind: C\n---\nkind: B\n", &one, &mut Shared::default()).unwrap();
        assert!(!Arc::ptr_eq(&one[0].1, &two[0].1));
        assert!(Arc::ptr_eq(&one[1].1, &two[1].1));
    }

    #[test]
    fn unreadable_text_is_named() {
        let error = parse(Path::new("a.yaml"), b"a\xff", &[], &mut Shared::default()).unwrap_err();
        assert_eq!(error, "is no UTF-8 text (byte 2)");
        let error = parse(Path::new("a.yaml"), b"a: 1\n---\na: [\n", &[], &mut Shared::default())
            .unwrap_err();
        assert!(error.starts_with("document 2 cannot be read: "), "{error}");
        assert!(parse(Path::new("a.json"), b"a: 1", &[], &mut Shared::default()).is_err());
        assert!(
            parse(Path::new("a.json"), b" \n", &[], &mut Shared::default())
                .is_ok_and(|d| d.is_empty())
        );
    }
}
