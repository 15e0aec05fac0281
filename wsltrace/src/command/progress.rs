//! Reading a recording's file, with a bar on the terminal when it takes longer than a second.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;
use crate::causes::reason;
use crate::escape::escape;
use crate::recording::{Damage, Ending, Entry, ReadError, Reader};

/// What takes longer gets a bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read at once.
const BUFFER: usize = 256 << 10;

/// A file that is read from its beginning to its end.
pub(super) struct Watched {
    file: File,
    bar: ProgressBar,
    /// When a bar is to appear; `None` when it has, or must not.
    due: Option<Instant>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.bar.inc(got as u64);
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Ok(got)
    }
}

/// A recording in a file.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    /// Bytes of the file.
    pub(super) length: u64,
    pub(super) reader: Reader<BufReader<Watched>>,
    bar: ProgressBar,
}

/// Opens a recording. A bar is drawn on stderr's terminal, unless `crowded`: text is written to the same one.
pub(super) fn open(path: &Path, crowded: bool) -> Result<Opened, Failure> {
    let failed = |error: ReadError| {
        let hint = match &error {
            ReadError::Newer { .. } => Some("read it with that version, or a newer one".to_owned()),
            ReadError::NoHeader(_) => {
                Some("copy it once more from where it was made: nothing can be read without its beginning".to_owned())
            }
            ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            ReadError::Foreign | ReadError::Io(_) => Some("name a file that `wsltrace --record FILE` has made".to_owned()),
        };
        let why = match &error {
            ReadError::Io(error) => reason(error),
            other => other.to_string(),
        };
        Failure { message: format!("cannot read {}: {why}", shown(path)), hint, status: 1 }
    };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory).into()));
    }
    let bar = ProgressBar::with_draw_target(Some(meta.len()), ProgressDrawTarget::hidden());
    // The template is a constant; without it the bar has the library's own look.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} % {eta:>4}") {
        bar.set_style(style);
    }
    let is_shown = io::stderr().is_terminal() && !crowded;
    let watched = Watched { file, bar: bar.clone(), due: is_shown.then(|| Instant::now() + PATIENCE) };
    let reader = Reader::new(BufReader::with_capacity(BUFFER, watched)).map_err(failed)?;
    Ok(Opened { path: path.to_owned(), length: meta.len(), reader, bar })
}

/// Entries that are handed over at once: a batch stays below the size from which the allocator asks the system each time.
const BATCH: usize = 128;
/// Batches that may wait.
const WAITING: usize = 16;

impl Opened {
    /// Hands every entry that is left to `each`, until it fails. The file is read and unpacked by a thread of its own meanwhile.
    /// The outer error is the file's, the inner one that of `each`.
    pub(super) fn for_each<E>(&mut self, mut each: impl FnMut(Entry) -> Result<(), E>) -> io::Result<Result<(), E>> {
        let Self { reader, bar, .. } = self;
        std::thread::scope(|scope| {
            let (sender, batches) = mpsc::sync_channel(WAITING);
            let reading = scope.spawn(move || -> io::Result<()> {
                loop {
                    let mut batch = Vec::with_capacity(BATCH);
                    while batch.len() < BATCH
                        && let Some(entry) = reader.next_entry()?
                    {
                        batch.push(entry);
                    }
                    // The other side is gone when `each` has failed.
                    if batch.is_empty() || sender.send(batch).is_err() {
                        return Ok(());
                    }
                }
            });
            let done = batches.into_iter().flatten().try_for_each(&mut each);
            // What is said next stands in its place.
            bar.finish_and_clear();
            reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|()| done)
        })
    }

    /// What is missing at the end of a recording that was read to its end; `None` when nothing is.
    pub(super) fn missing(&self) -> Option<String> {
        let Some(Ending::Short(damage)) = self.reader.ending() else { return None };
        let journeys = match self.reader.journeys() {
            1 => "1 journey before that was read".to_owned(),
            count => format!("{count} journeys before that were read"),
        };
        let (of, why) = match damage {
            // That is where the file ends.
            Damage::CutOff { .. } => (String::new(), "the run was killed, is still going on, or the file was not copied whole"),
            Damage::Damaged { .. } => (format!(" of {}", self.length), "what follows cannot be trusted"),
        };
        Some(format!("{} is {damage}{of}: {journeys}; {why}", shown(&self.path)))
    }
}

/// A path as it may be printed.
pub(super) fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}
