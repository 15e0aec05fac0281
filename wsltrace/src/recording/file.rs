//! Files that a run makes for the user: readable by the owner only, owned by the person behind sudo, and for a recording a row of
//! them when one grows too large.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use wsltrace_common::Record;

use super::frame::{MAGIC, read_up_to};
use super::{End, Header, Missed, Moment, Recorder};
use crate::journey::Names;
use crate::kernel::person;
use crate::output::Report;

/// Bytes that are gathered before the system is asked to write them.
const BUFFER: usize = 256 << 10;
/// A file smaller than this would hold little more than its header.
const SMALLEST: u64 = 64 << 10;

/// Makes a file, or empties the one that is there, that only its owner reads: the person behind sudo, where there is one. Follows
/// no symbolic link, and takes nothing but a regular file.
pub fn create(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// The same for a recording. A file that is there is only overwritten when it is a recording, or empty: a slip of the fingers must
/// not cost anybody a file.
fn create_recording(path: &Path) -> io::Result<File> {
    let mut file = open(path)?;
    let mut begin = [0; MAGIC.len()];
    let got = read_up_to(&mut file, &mut begin)?;
    if got != 0 && begin != MAGIC {
        return Err(io::Error::other("it exists and is no recording"));
    }
    file.set_len(0)?;
    file.rewind()?;
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // Without O_NONBLOCK a FIFO would be waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if let Some((uid, gid)) = person::behind_sudo() {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// When a recording goes on in another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file is left when it has this many bytes.
    pub size: u64,
    /// How many files are kept, the newest; all when `None`.
    pub keep: Option<u32>,
}

impl FromStr for Rotation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{}` is no size: name one such as 500K, 100M or 2G, or 100M,5 to keep five files", text.escape_debug());
        let (size, keep) = text.split_once(',').map_or((text, None), |(size, keep)| (size, Some(keep)));
        let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
        let shift = match unit {
            "" => 0,
            "K" | "k" => 10,
            "M" | "m" => 20,
            "G" | "g" => 30,
            _ => return Err(bad()),
        };
        let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(bad)?;
        if size < SMALLEST {
            return Err(format!("files of {size} bytes are too small for a recording: name 64K or more"));
        }
        let keep = keep.map(|keep| keep.parse().ok().filter(|keep| *keep > 0).ok_or_else(bad)).transpose()?;
        Ok(Self { size, keep })
    }
}

/// A recording in files.
pub struct FileRecorder {
    path: PathBuf,
    rotation: Option<Rotation>,
    header: Header,
    recorder: Recorder<BufWriter<File>>,
}

/// A place for a recording that can be written to: looked at before anything is attached.
pub struct Prepared {
    path: PathBuf,
    rotation: Option<Rotation>,
    file: File,
}

impl Prepared {
    /// Makes the file, or empties it.
    pub fn new(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), rotation, file: create_recording(path)? })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the recording.
    pub fn begin(self, header: Header) -> io::Result<FileRecorder> {
        let recorder = Recorder::new(BufWriter::with_capacity(BUFFER, self.file), &header)?;
        Ok(FileRecorder { path: self.path, rotation: self.rotation, header, recorder })
    }
}

impl FileRecorder {
    /// See [`Recorder::journey`]; `end` is made when the file is left for another.
    pub fn journey(
        &mut self,
        record: &Record,
        report: &Report,
        moment: Moment,
        names: &impl Names,
        end: impl FnOnce() -> End,
    ) -> io::Result<()> {
        self.recorder.journey(record, report, moment, names)?;
        match self.rotation {
            Some(rotation) if self.recorder.written() >= rotation.size => self.rotate(rotation, &end()),
            _ => Ok(()),
        }
    }

    fn rotate(&mut self, rotation: Rotation, end: &End) -> io::Result<()> {
        self.header.part += 1;
        let next = part(&self.path, self.header.part);
        let continued = next.file_name().map(|name| name.to_string_lossy().into_owned());
        let file = create_recording(&next)?;
        self.recorder.end(&End { journeys: self.recorder.journeys(), continued, ..end.clone() })?;
        self.recorder = Recorder::new(BufWriter::with_capacity(BUFFER, file), &self.header)?;
        if let Some(oldest) = rotation.keep.and_then(|keep| self.header.part.checked_sub(keep)).filter(|oldest| *oldest > 0) {
            std::fs::remove_file(part(&self.path, oldest))?;
        }
        Ok(())
    }

    /// See [`Recorder::forget_places`].
    pub fn forget_places(&mut self) {
        self.recorder.forget_places();
    }

    /// See [`Recorder::missed`].
    pub fn missed(&mut self, missed: &Missed) -> io::Result<()> {
        self.recorder.missed(missed)
    }

    /// See [`Recorder::talk`].
    pub fn talk(&mut self, said: &str) -> io::Result<()> {
        self.recorder.talk(said)
    }

    /// See [`Recorder::flush`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.recorder.flush()
    }

    /// See [`Recorder::end`]; the number of journeys is filled in.
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        self.recorder.end(&End { journeys: self.recorder.journeys(), continued: None, ..end.clone() })
    }

    /// The file that is written now.
    pub fn path(&self) -> PathBuf {
        part(&self.path, self.header.part)
    }

    /// How many journeys the file holds that is written now.
    pub fn journeys(&self) -> u64 {
        self.recorder.journeys()
    }
}

/// The name of a run's file: the second of `run.wsltrace` is `run.2.wsltrace`.
fn part(path: &Path, part: u32) -> PathBuf {
    if part < 2 {
        return path.to_owned();
    }
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    path.with_extension(format!("{part}{extension}").trim_start_matches('.'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!("100M".parse(), Ok(Rotation { size: 100 << 20, keep: None }));
        assert_eq!("2g,5".parse(), Ok(Rotation { size: 2 << 30, keep: Some(5) }));
        for text in ["", "M", "1T", "10M,", "10M,0", "-1", "99999999999999999999", "18014398509481984G"] {
            assert!(text.parse::<Rotation>().unwrap_err().contains("is no size"), "{text}");
        }
        assert!("10".parse::<Rotation>().unwrap_err().contains("too small"));
    }

    #[test]
    fn parts_are_counted_before_the_extension() {
        assert_eq!(part(Path::new("/a/run.wsltrace"), 1), Path::new("/a/run.wsltrace"));
        assert_eq!(part(Path::new("/a/run.wsltrace"), 2), Path::new("/a/run.2.wsltrace"));
        assert_eq!(part(Path::new("run"), 3), Path::new("run.3"));
    }
}
