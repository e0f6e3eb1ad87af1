//! A file of lines that is put aside when it is large, and of which only so many are kept.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use super::compress::{self, Compressor};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of a file before it is put aside.
    pub bytes: u64,
    /// Files that were put aside and are kept; 0 for all.
    pub backups: u32,
    /// Age at which one of them is removed.
    pub age: Option<Duration>,
    /// Whether those that were put aside are compressed.
    pub compress: bool,
}

/// The file that is written, and those that were put aside beside it as `NAME-TIME.EXTENSION`, with
/// `.gz` behind it once they are compressed.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    keep: Keep,
    open: Option<(File, u64)>,
    compressor: Option<Compressor>,
}

/// A file that was put aside.
#[derive(Debug)]
struct Backup {
    /// When, as in its name.
    time: String,
    /// Where it is: twice for the moment in which its compressed form takes its place.
    paths: Vec<PathBuf>,
}

impl RotatingFile {
    /// Nothing is opened before something is written.
    pub(super) const fn new(path: PathBuf, keep: Keep) -> Self {
        Self { path, keep, open: None, compressor: None }
    }

    /// Appends lines, all or none of them. A file that would get too large is put aside before.
    ///
    /// # Errors
    /// If the system refuses. The next call begins with opening the file anew.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        if size > 0 && size + lines.len() as u64 > self.keep.bytes {
            drop(file);
            self.put_aside(SystemTime::now())?;
            (file, size) = self.begin()?;
        }
        if let Err(error) = file.write_all(lines) {
            // What was written of them would be half a line. If it cannot be taken back, opening
            // ends it.
            let _taken_back = file.set_len(size).is_ok();
            return Err(error);
        }
        self.open = Some((file, size + lines.len() as u64));
        Ok(())
    }

    fn begin(&self) -> io::Result<(File, u64)> {
        // Flows say who talks to whom: nobody else may read them.
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok((file, size))
    }

    fn put_aside(&mut self, now: SystemTime) -> io::Result<()> {
        let time = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = time.strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let backups = self.backups()?;
        let time = match backups.first() {
            // Within one millisecond, or the clock was set back: the order counts.
            Some(newest) if newest.time >= time => {
                let (newest, number) = newest.time.split_at(SHAPE.len());
                let number = number.trim_start_matches('.').parse().unwrap_or(0_u32);
                format!("{newest}.{:06}", number.saturating_add(1))
            }
            _ => time,
        };
        let [stem, extension] = self.name();
        fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{time}{extension}")))?;
        self.remove_old(now)?;
        self.compress()
    }

    /// Has those compressed that are not, which may be more than the last: an agent before this one
    /// may not have come to it.
    fn compress(&mut self) -> io::Result<()> {
        if !self.keep.compress {
            return Ok(());
        }
        let files = self.backups()?.into_iter().flat_map(|backup| backup.paths);
        let plain = files.filter(|path| !path.to_string_lossy().ends_with(compress::EXTENSION));
        let plain = plain.collect();
        if self.compressor.is_none() {
            self.compressor = Some(Compressor::start()?);
        }
        if let Some(compressor) = &self.compressor {
            compressor.take(plain);
        }
        Ok(())
    }

    /// The file's name before and from its extension on.
    fn name(&self) -> [String; 2] {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = text(self.path.extension());
        let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
        [text(self.path.file_stem()), extension]
    }

    /// Files that were put aside, the newest first.
    fn backups(&self) -> io::Result<Vec<Backup>> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let [stem, extension] = self.name();
        let mut backups = BTreeMap::<String, Vec<PathBuf>>::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let rest = name.strip_prefix(&*stem).and_then(|rest| rest.strip_prefix('-'));
            let rest = rest.map(|rest| rest.strip_suffix(compress::EXTENSION).unwrap_or(rest));
            let time = rest.and_then(|rest| rest.strip_suffix(&*extension));
            if let Some(time) = time.filter(|time| is_time(time)) {
                let paths = backups.entry(time.to_owned()).or_default();
                paths.push(self.path.with_file_name(&*name));
            }
        }
        Ok(backups.into_iter().rev().map(|(time, paths)| Backup { time, paths }).collect())
    }

    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        let most = match self.keep.backups {
            0 => usize::MAX,
            most => most as usize,
        };
        for (place, backup) in self.backups()?.into_iter().enumerate() {
            for path in backup.paths {
                let is_old = |limit: Duration| {
                    let written = fs::metadata(&path).and_then(|data| data.modified());
                    written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > limit))
                };
                if place >= most || self.keep.age.is_some_and(is_old) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

/// Removes a file, if its compressed form has not taken its place meanwhile.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How a time is written; more of the same have a number behind it.
const SHAPE: &str = "0000-00-00T00-00-00.000";

/// Whether a name's part is the time at which a file was put aside.
fn is_time(text: &str) -> bool {
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let mut rest = text.chars().skip(SHAPE.len());
    text.chars().take(SHAPE.len()).map(digits).eq(SHAPE.chars())
        && rest.all(|c| c == '.' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KEEP: Keep = Keep { bytes: 20, backups: 2, age: None, compress: false };

    fn lines(file: &Path) -> String {
        fs::read_to_string(file).unwrap_or_default()
    }

    #[test]
    fn a_large_file_is_put_aside_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.log");
        for other in ["flows-old.log", "flows-2024-01-01T00-00-00.000.txt", "other.log"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let mut file = RotatingFile::new(path.clone(), KEEP);
        for number in 0..10 {
            file.append(format!("line {number}\nmore\n").as_bytes()).unwrap();
        }
        assert_eq!(lines(&path), "line 9\nmore\n");
        let kept: String =
            file.backups().unwrap().iter().map(|backup| lines(&backup.paths[0])).collect();
        assert_eq!(kept, "line 8\nmore\nline 7\nmore\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3 + 3, "others stay");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_is_larger_than_a_file_gets_one_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows");
        let mut file = RotatingFile::new(path.clone(), KEEP);
        let long = [b'x'; 50];
        file.append(&long).unwrap();
        file.append(b"short\n").unwrap();
        assert_eq!(lines(&path), "short\n");
        assert_eq!(file.backups().unwrap().len(), 1);
    }

    #[test]
    fn what_is_old_goes() {
        let folder = tempfile::tempdir().unwrap();
        let age = Some(Duration::from_secs(60));
        let file = RotatingFile::new(folder.path().join("f.log"), Keep { backups: 0, age, ..KEEP });
        let backup = |time: &str| folder.path().join(format!("f-2024-01-01T00-00-{time}.log"));
        for time in ["01.000", "02.000", "02.000.000001"] {
            fs::write(backup(time), "").unwrap();
        }
        let written = SystemTime::now() - Duration::from_secs(100);
        File::options().write(true).open(backup("01.000")).unwrap().set_modified(written).unwrap();
        file.remove_old(SystemTime::now()).unwrap();
        let kept: Vec<_> =
            file.backups().unwrap().into_iter().flat_map(|backup| backup.paths).collect();
        assert_eq!(kept, [backup("02.000.000001"), backup("02.000")]);
    }

    #[test]
    fn what_is_put_aside_is_compressed_counted_once_and_goes_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flows.log");
        // From before it was compressed; and one that is both for a moment.
        fs::write(folder.path().join("flows-2024-01-01T00-00-00.000.log"), "old\n").unwrap();
        for end in ["log", "log.gz"] {
            let name = format!("flows-2024-01-01T00-00-01.000.{end}");
            fs::write(folder.path().join(name), "both\n").unwrap();
        }
        let mut file = RotatingFile::new(path, Keep { compress: true, backups: 3, ..KEEP });
        assert_eq!(file.backups().unwrap().len(), 2);
        for number in 0..2 {
            file.append(format!("line {number}\nline\n").as_bytes()).unwrap();
        }
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let names = || -> Vec<String> {
            let backups = file.backups().unwrap().into_iter();
            let paths = backups.flat_map(|backup| backup.paths);
            paths.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        while !names().iter().all(|name| name.ends_with(".log.gz")) {
            assert!(std::time::Instant::now() < end, "{:?}", names());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(names().len(), 3);
        // More of them make the oldest go.
        for number in 0..2 {
            file.append(format!("line {number}\nmore\n").as_bytes()).unwrap();
        }
        drop(file.compressor.take());
        let backups = file.backups().unwrap();
        assert_eq!(backups.len(), 3);
        assert!(backups.iter().all(|backup| !backup.time.starts_with("2024")), "{backups:?}");
    }

    #[test]
    fn a_file_goes_on_where_it_was_and_half_a_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "whole\nhal").unwrap();
        RotatingFile::new(path.clone(), Keep { bytes: 99, ..KEEP }).append(b"next\n").unwrap();
        assert_eq!(lines(&path), "whole\nhal\nnext\n");
    }
}
