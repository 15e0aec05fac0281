//! What a run keeps in files beside what it tells: a recording, and exports. A file that cannot be written to any more is given up
//! with a warning, and the tracing goes on.

use std::io::{self, BufWriter};
use std::path::PathBuf;

use wsltrace_common::Record;

use super::Failure;
use super::progress::shown;
use crate::causes::reason;
use crate::cli::TraceArgs;
use crate::export::{Export, Format, Out};
use crate::kernel::names::MachineNames;
use crate::output::Report;
use crate::output::contract::SummaryLine;
use crate::recording::file::{Existing, FileRecorder, Prepared, create};
use crate::recording::{End, Header, Missed, Moment};

/// The files of a run.
#[derive(Default)]
pub(super) struct Keeper {
    prepared: Option<Prepared>,
    recorder: Option<FileRecorder>,
    exports: Vec<Exporting>,
    /// Something could not be written.
    failed: bool,
}

struct Exporting {
    format: Format,
    path: PathBuf,
    to: Box<dyn Export + Send>,
}

impl Keeper {
    /// Makes the files that were asked for.
    pub(super) fn prepare(args: &TraceArgs) -> Result<Self, Failure> {
        if args.exports.iter().filter(|target| target.is_stdout()).count() + usize::from(args.json) > 1 {
            let message = "only one thing can be written to stdout";
            return Err(Failure::usage(message, "give all but one of --json and --export FORMAT:- the name of a file"));
        }
        if args.record.as_deref().is_some_and(|path| path.as_os_str() == "-") {
            let hint = "name a file, and read it with `wsltrace report FILE`; for other programs there is --export FORMAT:-";
            return Err(Failure::usage("a recording is not written to stdout", hint));
        }
        let exported = args.exports.iter().filter(|target| !target.is_stdout()).map(|target| target.path.as_path());
        super::distinct(args.record.as_deref().into_iter().chain(args.ready_file.as_deref()).chain(exported))?;
        let existing = Existing::by_force(args.force);
        let prepared = args
            .record
            .as_deref()
            .map(|path| Prepared::new(path, args.rotate, existing).map_err(|error| super::cannot_make("recording", path, &error)))
            .transpose()?;
        let exports = args.exports.iter().map(|target| {
            let out: Out = if target.is_stdout() {
                super::stdout_for(target.format)?
            } else {
                let file = create(&target.path, existing);
                Box::new(BufWriter::new(file.map_err(|error| super::cannot_make("export", &target.path, &error))?))
            };
            let to = target.format.writer(out);
            Ok(Exporting { format: target.format, path: target.path.clone(), to })
        });
        let exports = exports.collect::<Result<_, Failure>>()?;
        Ok(Self { prepared, exports, ..Self::default() })
    }

    /// Whether a file could not be written to its end.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn begin(&mut self, header: &Header) {
        if let Some(prepared) = self.prepared.take() {
            let path = prepared.path().to_owned();
            match prepared.begin(header.clone()) {
                Ok(recorder) => self.recorder = Some(recorder),
                Err(error) => {
                    self.failed = true;
                    let (path, reason) = (shown(&path), reason(&error));
                    log::warn!("nothing is recorded: cannot write to {path}: {reason}; the tracing goes on");
                }
            }
        }
        self.export(|export| export.begin(header));
    }

    /// Interfaces may have other names from now on.
    pub(super) fn forget_places(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.forget_places();
        }
    }

    /// Keeps a journey that is told at `told_ns` (`CLOCK_MONOTONIC`); `end` is asked for when the recording goes on in another file.
    pub(super) fn journey(
        &mut self,
        record: &Record,
        report: &Report,
        names: &MachineNames,
        told_ns: u64,
        end: impl FnOnce() -> End,
    ) {
        self.record(|recorder| {
            let moment = Moment { time: report.journey.time, told_ns };
            recorder.journey(record, report, moment, names, end)
        });
        self.export(|export| export.journey(report));
    }

    pub(super) fn missed(&mut self, missed: &Missed) {
        self.record(|recorder| recorder.missed(missed));
        self.export(|export| export.missed(missed));
    }

    pub(super) fn talk(&mut self, said: &str) {
        self.record(|recorder| recorder.talk(said));
    }

    /// Writes out what is in buffers: what was told is then in the files, however this process ends.
    pub(super) fn flush(&mut self) {
        self.record(FileRecorder::flush);
        self.export(|export| export.flush());
    }

    pub(super) fn end(&mut self, end: &End, summary: &SummaryLine) {
        self.record(|recorder| recorder.end(end));
        self.export(|export| export.end(Some(end), summary));
    }

    fn record(&mut self, what: impl FnOnce(&mut FileRecorder) -> io::Result<()>) {
        let Some(recorder) = &mut self.recorder else { return };
        if let Err(error) = what(recorder) {
            self.failed = true;
            log::warn!(
                "the recording ends here: cannot write to {}: {}; up to {} journeys are in it, and the tracing goes on",
                shown(&recorder.path()),
                reason(&error),
                recorder.journeys()
            );
            self.recorder = None;
        }
    }

    fn export(&mut self, mut what: impl FnMut(&mut (dyn Export + Send)) -> io::Result<()>) {
        let failed = &mut self.failed;
        self.exports.retain_mut(|export| match what(export.to.as_mut()) {
            Ok(()) => true,
            Err(error) => {
                *failed = true;
                log::warn!(
                    "the export to {} ends here: cannot write to {}: {}; the tracing goes on",
                    export.format.name(),
                    shown(&export.path),
                    reason(&error)
                );
                false
            }
        });
    }
}
