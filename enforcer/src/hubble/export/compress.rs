//! Files that were put aside, compressed by a thread of its own: whoever writes lines waits for
//! none of it.
//!
//! A compressed file takes the place of the other by a rename, when it is whole. One that an ended
//! agent has left half done is begun anew, because what it was made of is still there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use flate2::{Compression, write::GzEncoder};

/// What a compressed file's name ends with.
pub(super) const EXTENSION: &str = ".gz";
/// The same while it is written.
const UNFINISHED: &str = ".gz.part";
/// Bytes between two looks whether to end.
const PART: usize = 64 << 10;

/// The thread. It ends, and leaves nothing half done, when this is dropped.
#[derive(Debug)]
pub(super) struct Compressor {
    files: Option<Sender<Vec<PathBuf>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    /// Starts it.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub(super) fn start() -> io::Result<Self> {
        let (files, received) = mpsc::channel::<Vec<PathBuf>>();
        let ending = Arc::new(AtomicBool::new(false));
        let told_to_end = Arc::clone(&ending);
        let work = move || {
            for file in received.into_iter().flatten() {
                match compress(&file, &told_to_end) {
                    Ok(Done::Whole) => {}
                    Ok(Done::ToldToEnd) => return,
                    // Too old meanwhile, or too many.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(
                        %error,
                        file = %file.display(),
                        "exported flows stay uncompressed; tried again with the next file"
                    ),
                }
            }
        };
        let thread = thread::Builder::new().name("export-gzip".to_owned()).spawn(work)?;
        Ok(Self { files: Some(files), ending, thread: Some(thread) })
    }

    /// Compresses these soon. What is compressed by then is passed over.
    pub(super) fn take(&self, files: Vec<PathBuf>) {
        if let Some(sender) = &self.files {
            // Without the thread they stay as they are.
            let _gone = sender.send(files).is_err();
        }
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        drop(self.files.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that compresses exported flows ended by itself");
        }
    }
}

/// How far it came.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Whole,
    ToldToEnd,
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Replaces a file by a compressed one of the same age.
fn compress(path: &Path, ending: &AtomicBool) -> io::Result<Done> {
    let file = File::open(path)?;
    let part = with(path, UNFINISHED);
    let done = copy(file, &part, ending);
    if matches!(done, Ok(Done::Whole)) {
        fs::rename(&part, with(path, EXTENSION))?;
        fs::remove_file(path)?;
    } else {
        // If it was begun at all.
        let _removed = fs::remove_file(&part).is_ok();
    }
    done
}

fn copy(mut from: File, to: &Path, ending: &AtomicBool) -> io::Result<Done> {
    let written = from.metadata()?.modified()?;
    // Anew, so that it is nobody else's whoever has left it.
    let _removed = fs::remove_file(to).is_ok();
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut out = GzEncoder::new(out, Compression::default());
    let mut part = vec![0; PART];
    loop {
        if ending.load(Relaxed) {
            return Ok(Done::ToldToEnd);
        }
        match from.read(&mut part)? {
            0 => break,
            length => out.write_all(part.get(..length).unwrap_or_default())?,
        }
    }
    let out = out.finish()?;
    out.set_modified(written)?;
    out.sync_all()?;
    Ok(Done::Whole)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::SystemTime};

    use super::*;

    #[test]
    fn what_is_told_to_end_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.log");
        fs::write(&path, "lines\n").unwrap();
        assert_eq!(compress(&path, &AtomicBool::new(true)).unwrap(), Done::ToldToEnd);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"lines\n");
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_age_and_is_nobody_elses_business() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.log");
        let lines = "a line\n".repeat(100_000);
        fs::write(&path, &lines).unwrap();
        let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        // What one that was killed has left.
        fs::write(with(&path, UNFINISHED), "rubbish".repeat(1000)).unwrap();
        assert_eq!(compress(&path, &AtomicBool::new(false)).unwrap(), Done::Whole);
        let zipped = with(&path, EXTENSION);
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, std::slice::from_ref(&zipped));
        let data = fs::metadata(&zipped).unwrap();
        assert_eq!(data.modified().unwrap(), written);
        assert_eq!(data.permissions().mode() & 0o777, 0o600);
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(&zipped).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, lines);
    }
}
