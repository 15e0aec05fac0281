//! `cargo xtask vm KERNEL`: boots a kernel under QEMU and plays the self-test in it.
//!
//! The guest is a kernel and an initramfs that holds nothing but our program, the tools that the lab needs, and the kernel's
//! network modules. QEMU emulates the processor (TCG), so any machine can do it, without KVM and without root.

mod cpio;
mod debian;
mod guest;
mod image;
mod kernel;
mod modules;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use self::{
    guest::{End, Machine},
    image::Contents,
    report::Report,
};
use crate::{
    build,
    command::say,
    error::Error,
    places,
    setup::{self, Part},
};

/// Names the kernel image that `cargo xtask test` boots.
const VARIABLE: &str = "WSLTRACE_VM_KERNEL";
/// The image that `cargo xtask test` boots where the variable names none: a file beside the checkout, where one is.
const BESIDE: &str = "../shared/kernels/bzImage-6.12-wsl-config";

/// What to boot and what to play.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A kernel image (bzImage), or debian:SUITE for the kernel of that suite of Debian's archive
    kernel: String,
    /// Only these scenarios
    scenarios: Vec<String>,
    /// The kernel's modules (lib/modules/VERSION) [default: beside the image, if they are there]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// How many processors the guest has; QEMU's emulation of more than one is not sound, and guests die of it now and then
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    processors: u32,
    /// How many guests share the scenarios, each with as many processors
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    guests: u32,
    /// Run this shell script in one guest instead of the self-test; what it prints comes as it is, and its exit status decides
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "guests"])]
    script: Option<PathBuf>,
    /// Take this program of this machine along, with its libraries; may be repeated
    #[arg(long, value_name = "PROGRAM")]
    with: Vec<String>,
    /// Stop the guest after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// Boots the kernel and plays the scenarios; an error unless all were played and passed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    setup::ensure(&[Part::Build, Part::Test, Part::Vm])?;
    build::run(true)?;
    play(arguments, say)
}

/// Boots the kernel that the environment names, or the one beside the checkout, as a part of `cargo xtask test`, while that goes on
/// with other things. Two guests, because a guest has one processor. The program has been built for release. `None`: there is no kernel.
pub(crate) fn start_default() -> Result<Option<Started>, Error> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let beside = places::root().join(BESIDE);
    let Some(kernel) = named.or_else(|| beside.is_file().then_some(beside)) else {
        say(&format!("vm: not run: {VARIABLE} names no kernel image, and there is none at {BESIDE}"));
        return Ok(None);
    };
    setup::ensure(&[Part::Vm])?;
    let kernel = kernel.to_string_lossy().into_owned();
    say("vm: started; its table comes at the end");
    Ok(Some(Started(thread::spawn(move || {
        let mut rows = Vec::new();
        let arguments = Arguments {
            kernel,
            scenarios: Vec::new(),
            modules: None,
            processors: 1,
            guests: 2,
            script: None,
            with: Vec::new(),
            limit: 60,
        };
        let result = play(&arguments, |row| rows.push(row.to_owned()));
        (rows, result)
    }))))
}

/// Guests at work.
pub(crate) struct Started(JoinHandle<(Vec<String>, Result<(), Error>)>);

impl Started {
    /// Waits for its end, and says what it said.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let (rows, result) = self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for row in rows {
            say(&row);
        }
        result
    }
}

fn play(arguments: &Arguments, mut say: impl FnMut(&str)) -> Result<(), Error> {
    let kernel = match arguments.kernel.strip_prefix("debian:") {
        Some(suite) => debian::bring(suite)?,
        None => PathBuf::from(&arguments.kernel),
    };
    let version = kernel::version(&kernel)?;
    let modules = match &arguments.modules {
        Some(directory) => Some(directory.clone()),
        None => modules::beside(&kernel, &version),
    };
    let directory = places::virtual_machines().join(&version);
    fs::create_dir_all(&directory).map_err(file("make", &directory))?;

    let about = modules.as_ref().map_or_else(|| "no modules".to_owned(), |modules| format!("modules from {}", modules.display()));
    say(&format!("vm: Linux {version}, {about}"));
    let mut consoles = Vec::new();
    let mut machines = Vec::new();
    for number in 1..=arguments.guests {
        let mut words = vec![format!("--part={number}/{}", arguments.guests)];
        words.extend_from_slice(&arguments.scenarios);
        let mut contents = Contents::new(&words)?;
        contents.take_along(arguments.script.as_deref(), &arguments.with)?;
        if let Some(modules) = &modules {
            contents.modules(&version, modules)?;
        }
        contents.configuration(&version, &kernel);
        let initramfs = directory.join(format!("initramfs-{number}"));
        contents.write(&initramfs)?;
        let console = directory.join(format!("console-{number}.log"));
        consoles.push(console.clone());
        machines.push(Machine { kernel: kernel.clone(), initramfs, console, processors: arguments.processors });
    }
    let mut reports = vec![Report::new(arguments.script.is_some()); machines.len()];
    let ends = guest::run_all(machines, Duration::from_mins(arguments.limit), |guest, line| {
        reports[guest].read(line).into_iter().for_each(|row| say(&row));
    })?;
    if arguments.script.is_none() {
        say(&Report::summary(&reports));
    }
    let judged = ends.iter().zip(&reports).zip(&consoles).map(|((end, report), console)| judge(end, report, console));
    let mut errors = judged.filter_map(Result::err);
    let Some(first) = errors.next() else { return Ok(()) };
    errors.for_each(|error| say(&format!("error: {error}")));
    Err(first)
}

/// A guest that hangs, one that dies, and one whose tests fail are three different things.
fn judge(end: &End, report: &Report, console: &Path) -> Result<(), Error> {
    let place = report.last().map_or_else(|| "before the first scenario".to_owned(), |name| format!("after {name}"));
    let what = match end {
        End::Silent(limit) => format!("the guest hangs: it said nothing for {} s, {place}", limit.as_secs()),
        End::Overdue(limit) => format!("the guest was not done within {} min; killed {place}", limit.as_secs() / 60),
        End::Over(status) if report.status().is_none() => format!("the guest died {place} (QEMU: {status})"),
        End::Over(_) => return report.judge().map_err(Error::Tests),
    };
    Err(Error::Guest { what, console: console.to_owned(), tail: guest::tail(console) })
}

/// Makes an error of what failed on a file.
fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, path::Path, process::ExitStatus, time::Duration};

    use super::{End, Report, judge};

    fn said(end: &End, lines: &[&str]) -> String {
        let mut report = Report::default();
        for line in lines {
            report.read(line);
        }
        match judge(end, &report, Path::new("/nonexistent/console.log")) {
            Ok(()) => "good".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_guest_that_hangs_one_that_dies_and_one_that_fails_are_told_apart() {
        const PASSED: &str = r#"{"name":"a","client":"connected","result":"passed"}"#;
        const COUNTS: &str = r#"{"failed":0,"passed":1,"skipped":0,"impossible":0}"#;
        let over = End::Over(ExitStatus::from_raw(0));
        assert_eq!(said(&over, &[PASSED, COUNTS, "end 0"]), "good");
        assert!(said(&over, &[PASSED]).starts_with("the guest died after a (QEMU: exit status: 0)"));
        assert!(said(&over, &[]).starts_with("the guest died before the first scenario"));
        assert!(said(&over, &[PASSED, "end 101"]).contains("did not come to its end"));
        // A guest that has said everything and then does not power off hangs as well.
        let silent = End::Silent(Duration::from_mins(5));
        assert!(said(&silent, &[PASSED, COUNTS, "end 0"]).starts_with("the guest hangs: it said nothing for 300 s, after a"));
        let overdue = End::Overdue(Duration::from_hours(1));
        assert!(said(&overdue, &[PASSED]).starts_with("the guest was not done within 60 min; killed after a"));
    }
}
