//! `wsltrace diff A B`: what changed between two recordings, for "it worked yesterday".

use std::path::Path;

use super::Failure;
use super::progress::{open, shown};
use super::report::provenance;
use crate::cli::DiffArgs;
use crate::output::{Shown, Side, TextOptions, Verbosity, difference, tell};
use crate::recording::Entry;

/// Prints what changed.
pub fn run(args: &DiffArgs) -> Result<(), Failure> {
    let (then, now) = (read(&args.then)?, read(&args.now)?);
    let text = difference(&then, &now, TextOptions::detect(Verbosity::Normal, Shown::Attempts));
    super::print(text)
}

fn read(path: &Path) -> Result<Side, Failure> {
    let mut opened = open(path, false)?;
    let header = opened.reader.header().clone();
    let said = format!("{}: {}", shown(path), provenance(&header));
    tell(&said);
    let mut side = Side::new(path.display().to_string(), header);
    let read: Result<(), std::convert::Infallible> = opened.for_each(|entry| {
        if let Entry::Journey { report, .. } = entry {
            side.add(&report);
        }
        Ok(())
    })?;
    let Ok(()) = read;
    if let Some(missing) = opened.missing() {
        log::warn!("{missing}");
    }
    Ok(side)
}
