//! `wsltrace convert FILE --to FORMAT`: a recording in other programs' formats.

use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::progress::{open, shown};
use super::{Failure, cannot_make, cannot_write};
use crate::cli::ConvertArgs;
use crate::export::{Format, Out};
use crate::output::contract::Lost;
use crate::output::{Summary, tell};
use crate::recording::{Ending, Entry, file};

/// Converts; streams, so a long recording needs no more memory.
pub fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let to = args.output.clone().unwrap_or_else(|| default_name(&args.file, args.to));
    if is_same_file(&to, &args.file) {
        return Err(Failure::usage(
            "the recording cannot be converted into itself",
            "wsltrace convert FILE --to FORMAT -o OTHER",
        ));
    }
    let mut opened = open(&args.file, false)?;
    let out: Out = if to.as_os_str() == "-" {
        super::stdout_for(args.to)?
    } else {
        let made = file::create(&to, file::Existing::by_force(args.force));
        Box::new(BufWriter::new(made.map_err(|error| cannot_make(args.to.name(), &to, &error))?))
    };
    let mut export = args.to.writer(out);
    let mut summary = Summary::default();
    let header = opened.reader.header().clone();
    let mut told = 0;
    let mut written = export.begin(&header);
    if written.is_ok() {
        written = opened.for_each(|entry| match entry {
            Entry::Journey { report, told_ns } => {
                told = told_ns;
                summary.add(&report.journey, &report.diagnosis);
                export.journey(&report)
            }
            Entry::Missed(missed) => export.missed(&missed),
            Entry::Talk(_) => Ok(()),
        })?;
    }
    let (end, line) = match opened.reader.ending() {
        Some(Ending::Whole(end)) => (Some(end), summary.line(end.time, end.duration_ns, end.lost)),
        _ => (None, summary.line(header.clock.wall, told, Lost::default())),
    };
    match written.and_then(|()| export.end(end, &line)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(cannot_write(&to, &error)),
    }
    if let Some(missing) = opened.missing() {
        log::warn!("{missing}");
    }
    if to.as_os_str() != "-" {
        let count = opened.reader.journeys();
        let written = format!("{count} {} written to {}", if count == 1 { "journey" } else { "journeys" }, shown(&to));
        tell(&written);
    }
    Ok(())
}

/// Whether two paths lead to one file, whatever they look like: writing would empty what is to be read.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

/// The recording's name with the format's extension, in the current folder.
fn default_name(recording: &Path, format: Format) -> PathBuf {
    let name = recording.file_name().map_or_else(|| "recording".into(), PathBuf::from);
    name.with_extension(format.extension())
}
