//! Talk for the curious: warnings always, the kernel side's debug text with `--verbose`, on stderr.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::escape::escape;
use crate::output::tell;

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn || metadata.target().starts_with("wsltrace")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            tell(&format!("wsltrace: {level}: {}", escape(&record.args().to_string())));
        }
    }

    fn flush(&self) {}
}

/// Begins to write log messages to stderr.
pub fn log_to_stderr(verbose: bool) {
    // Only the first call of a process counts, and this is it.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(if verbose { LevelFilter::Debug } else { LevelFilter::Warn });
    }
}
