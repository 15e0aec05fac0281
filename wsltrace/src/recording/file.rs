//! Files that a run makes for the user: readable by the owner only, owned by the person behind sudo, and for a recording a row of
//! them when one grows too large.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use wsltrace_common::Record;

use super::frame::{MAGIC, read_up_to};
use super::{End, Header, Missed, Moment, Recorder};
use crate::escape::escape;
use crate::journey::Names;
use crate::kernel::person;
use crate::output::Report;

/// Bytes that are gathered before the system is asked to write them.
const BUFFER: usize = 256 << 10;
/// A file smaller than this would hold little more than its header.
const SMALLEST: u64 = 64 << 10;

/// What to do with a file that is there and holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays as it is, and nothing is written ([`io::ErrorKind::AlreadyExists`]): a fault that was recorded may not come again.
    Keep,
    /// It is overwritten.
    Overwrite,
}

impl Existing {
    /// What `--force` says.
    pub fn by_force(force: bool) -> Self {
        if force { Self::Overwrite } else { Self::Keep }
    }
}

/// Makes a file, or takes the one that is there if it is empty or may be overwritten, that only its owner reads: the person behind
/// sudo, where there is one. Follows no symbolic link, and takes nothing but a regular file.
pub fn create(path: &Path, existing: Existing) -> io::Result<File> {
    let file = open(path)?;
    if existing == Existing::Keep && file.metadata()?.len() > 0 {
        return Err(already_there("it exists"));
    }
    emptied(owned(file)?)
}

/// The same for a recording, but that what the file holds stays until the recording begins. A file that is no recording is never
/// overwritten: a slip of the fingers must not cost anybody a file.
fn open_recording(path: &Path, existing: Existing) -> io::Result<File> {
    let mut file = open(path)?;
    let mut begin = [0; MAGIC.len()];
    let got = read_up_to(&mut file, &mut begin)?;
    if got != 0 && begin != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it exists and is no recording"));
    }
    if got != 0 && existing == Existing::Keep {
        return Err(already_there("it holds a recording"));
    }
    owned(file)
}

fn already_there(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, what)
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
        .open(path)
        .map_err(
            |error| if path.is_symlink() { io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link") } else { error },
        )?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

fn owned(file: File) -> io::Result<File> {
    if let Some((uid, gid)) = person::behind_sudo() {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

fn emptied(mut file: File) -> io::Result<File> {
    file.set_len(0)?;
    file.rewind()?;
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
    existing: Existing,
    header: Header,
    recorder: Recorder<BufWriter<File>>,
}

/// A place for a recording that can be written to: looked at before anything is attached.
pub struct Prepared {
    path: PathBuf,
    rotation: Option<Rotation>,
    existing: Existing,
    file: File,
}

impl Prepared {
    /// Makes the file, or takes the one that is there, which keeps what it holds until [`begin`](Self::begin).
    pub fn new(path: &Path, rotation: Option<Rotation>, existing: Existing) -> io::Result<Self> {
        let file = open_recording(path, existing)?;
        if existing == Existing::Keep
            && rotation.is_some()
            && let Some(later) = later_part(path)?
        {
            return Err(already_there(&format!("an earlier run left {} there", escape(&later.to_string_lossy()))));
        }
        Ok(Self { path: path.to_owned(), rotation, existing, file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the recording.
    pub fn begin(self, header: Header) -> io::Result<FileRecorder> {
        let file = emptied(self.file)?;
        let recorder = Recorder::new(BufWriter::with_capacity(BUFFER, file), &header)?;
        Ok(FileRecorder { path: self.path, rotation: self.rotation, existing: self.existing, header, recorder })
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
        let file = emptied(open_recording(&next, self.existing)?)?;
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

/// A later file of a run of this name that is there.
fn later_part(path: &Path) -> io::Result<Option<OsString>> {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else { return Ok(None) };
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    let begin = format!("{}.", stem.to_string_lossy());
    let is_part = |name: &str| {
        let number = name.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&extension));
        number.and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number > 1)
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in folder.read_dir()? {
        let name = entry?.file_name();
        if is_part(&name.to_string_lossy()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
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

    #[test]
    fn what_is_there_is_kept_unless_it_may_be_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.wsltrace");
        let why = |made: io::Result<()>| made.map_err(|error| (error.kind(), error.to_string()));
        let export = |existing| why(create(&path, existing).map(drop));
        let record = |existing| why(Prepared::new(&path, None, existing).map(drop));
        let there = |what: &str| Err((io::ErrorKind::AlreadyExists, what.to_owned()));
        // An empty file is one that a run made which did not come to its beginning.
        for _ in 0..2 {
            assert_eq!((export(Existing::Keep), record(Existing::Keep)), (Ok(()), Ok(())));
        }
        std::fs::write(&path, b"log").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(export(Existing::Keep), there("it exists"));
        for existing in [Existing::Keep, Existing::Overwrite] {
            assert_eq!(record(existing), Err((io::ErrorKind::InvalidData, "it exists and is no recording".to_owned())));
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"log");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "its mode is the user's, too");
        assert_eq!(export(Existing::Overwrite), Ok(()));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);

        std::fs::write(&path, MAGIC).unwrap();
        assert_eq!(record(Existing::Keep), there("it holds a recording"));
        assert_eq!(record(Existing::Overwrite), Ok(()));
        assert_eq!(std::fs::read(&path).unwrap(), MAGIC, "until the recording begins");
    }

    #[test]
    fn later_files_of_an_earlier_run_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.wsltrace");
        for name in ["run.html", "run.1.wsltrace", "run.x.wsltrace", "ru.2.wsltrace", "run.2.wsltrace.bak"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        assert_eq!(later_part(&path).unwrap(), None);
        let rotation = Some(Rotation { size: SMALLEST, keep: Some(2) });
        assert!(Prepared::new(&path, rotation, Existing::Keep).is_ok());
        // The newest of those that were kept: the second is gone.
        std::fs::write(folder.path().join("run.7.wsltrace"), b"x").unwrap();
        let error = Prepared::new(&path, rotation, Existing::Keep).err().unwrap();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::AlreadyExists, "an earlier run left run.7.wsltrace there")
        );
        assert!(Prepared::new(&path, None, Existing::Keep).is_ok(), "without --rotate it is in nobody's way");
        assert!(Prepared::new(&path, rotation, Existing::Overwrite).is_ok());
    }
}
