//! The tracer as a child process: started, known to be armed, stopped. Nothing of it outlives us.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LabError, Namespace, PORT};
use crate::probe::Detail;

/// How long loading and attaching may take: a bound for what hangs, not a measure.
const ARMING: Duration = Duration::from_mins(2);
/// How long the tracer may take to write its last lines.
const STOPPING: Duration = Duration::from_mins(1);

/// A running tracer. Dropping it kills it; it dies too when the thread that started it ends.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    exit: OwnedFd,
    inotify: Inotify,
    directory: tempfile::TempDir,
    reader: Option<JoinHandle<io::Result<Vec<u8>>>>,
    talks: bool,
}

/// What a stopped tracer left.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; empty when that was ours.
    pub stdout: String,
    /// Its standard error; empty when that was ours.
    pub stderr: String,
}

impl Tracer {
    /// Starts `binary` on the namespace with JSON output, which is kept.
    pub fn start_json(binary: &Path, namespace: &Namespace, detail: Detail) -> Result<Self, LabError> {
        Self::start_reading(binary, namespace, &["--detail", argument(detail)], read_all)
    }

    /// The same with arguments of the caller's. `read` takes the standard output, on a thread of its own, and returns what is to be kept
    /// of it.
    pub fn start_reading(
        binary: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        read: impl FnOnce(ChildStdout) -> io::Result<Vec<u8>> + Send + 'static,
    ) -> Result<Self, LabError> {
        let mut tracer = Self::start(binary, namespace, arguments, true)?;
        tracer.reader = tracer.child.stdout.take().map(|stdout| thread::spawn(move || read(stdout)));
        Ok(tracer)
    }

    /// Starts `binary` on the namespace with text output on our own standard output and error.
    pub fn start_text(binary: &Path, namespace: &Namespace, detail: Detail) -> Result<Self, LabError> {
        Self::start(binary, namespace, &["--detail", argument(detail)], false)
    }

    fn start(binary: &Path, namespace: &Namespace, arguments: &[&str], json: bool) -> Result<Self, LabError> {
        let directory = tempfile::Builder::new().prefix("wsltrace-lab-").tempdir();
        let directory = directory.map_err(LabError::io("make a temporary directory"))?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(LabError::io("start inotify"))?;
        let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory.path(), events).map_err(LabError::io("watch the temporary directory"))?;

        let mut command = Command::new(binary);
        command.args(["--port", &PORT.to_string(), "--all", "--ready-file"]).arg(ready_file(directory.path())).args(arguments);
        command.stdin(Stdio::null()).env("TMPDIR", directory.path());
        if json {
            let stderr = File::create(stderr_file(directory.path())).map_err(LabError::io("make a file for errors"))?;
            command.arg("--json").stdout(Stdio::piped()).stderr(stderr);
        }
        // In the namespace itself, as on a machine that has no other: the commands that it prints are then those of daily use.
        let home = namespace.file().try_clone().map_err(LabError::io("open the namespace"))?;
        let before_exec = move || {
            setns(&home, CloneFlags::CLONE_NEWNET)?;
            set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
        };
        // SAFETY: between fork and exec this only makes system calls, which are async-signal-safe.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn().map_err(LabError::io(format!("start {}", binary.display())))?;
        let exit = pidfd(&child).map_err(LabError::io("watch the tracer's process"))?;
        Ok(Self { child, exit, inotify, directory, reader: None, talks: json })
    }

    /// The process's id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits until every probe is on. Fails at once when the tracer ends before.
    pub fn await_armed(&mut self) -> Result<(), LabError> {
        if self.armed_within(ARMING)? {
            return Ok(());
        }
        Err(LabError::Failed(format!("the tracer was not armed within {} s", ARMING.as_secs())))
    }

    /// Waits until every probe is on, or the time is over (false). Fails at once when the tracer ends before.
    pub fn armed_within(&mut self, patience: Duration) -> Result<bool, LabError> {
        let deadline = Instant::now() + patience;
        while !fs::exists(ready_file(self.directory.path())).map_err(LabError::io("look for the ready file"))? {
            let mut watched =
                [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
            poll(&mut watched, remaining(deadline)?).map_err(LabError::io("wait for the tracer"))?;
            let [file, exit] = watched.map(|fd| fd.any().unwrap_or(false));
            if file {
                self.inotify.read_events().map_err(LabError::io("read inotify events"))?;
            } else if exit {
                let status = self.child.wait().map_err(LabError::io("wait for the tracer"))?;
                let why = self.stderr()?;
                return Err(LabError::Failed(format!("the tracer ended before it was armed ({status}): {}", why.escape_debug())));
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks it to end, as Ctrl-C does, and returns what it said.
    pub fn stop(mut self) -> Result<Said, LabError> {
        kill(self.pid(), Signal::SIGINT).map_err(LabError::io("interrupt the tracer"))?;
        let mut watched = [PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
        if poll(&mut watched, timeout(STOPPING)?).map_err(LabError::io("wait for the tracer"))? == 0 {
            return Err(LabError::Failed(format!("the tracer did not end within {} s of SIGINT", STOPPING.as_secs())));
        }
        let status = self.child.wait().map_err(LabError::io("wait for the tracer"))?;
        let stdout = match self.reader.take().map(JoinHandle::join) {
            None => Vec::new(),
            Some(Ok(bytes)) => bytes.map_err(LabError::io("read the tracer's output"))?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
        Ok(Said { status, stdout: String::from_utf8_lossy(&stdout).into_owned(), stderr: self.stderr()? })
    }

    /// Kills it as it stands, and returns the names of files that it left in its temporary directory.
    pub fn kill(mut self) -> Result<Vec<String>, LabError> {
        self.child.kill().map_err(LabError::io("kill the tracer"))?;
        self.child.wait().map_err(LabError::io("wait for the tracer"))?;
        let names = fs::read_dir(self.directory.path()).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()
        });
        let names = names.map_err(LabError::io("list the temporary directory"))?;
        // The ready file was asked for, and its neighbour of a similar name is on its way to become it.
        Ok(names.into_iter().filter(|name| name != "stderr" && !name.contains("ready")).collect())
    }

    fn stderr(&self) -> Result<String, LabError> {
        if !self.talks {
            return Ok(String::new());
        }
        let bytes = fs::read(stderr_file(self.directory.path())).map_err(LabError::io("read the tracer's errors"))?;
        Ok(ends(String::from_utf8_lossy(&bytes).trim()))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first and the last lines of a long text: a verifier's log says at its end what is wrong.
fn ends(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [first, .., a, b, c] if lines.len() > 10 => format!("{first}\n...\n{a}\n{b}\n{c}"),
        _ => text.to_owned(),
    }
}

fn read_all(mut stdout: ChildStdout) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What stands behind `--detail`.
fn argument(detail: Detail) -> &'static str {
    match detail {
        Detail::Auto => "auto",
        Detail::Full => "full",
        Detail::Light => "light",
    }
}

fn ready_file(directory: &Path) -> PathBuf {
    directory.join("ready")
}

fn stderr_file(directory: &Path) -> PathBuf {
    directory.join("stderr")
}

fn timeout(duration: Duration) -> Result<PollTimeout, LabError> {
    PollTimeout::try_from(duration).map_err(|error| LabError::Failed(format!("{duration:?} is no time-out: {error}")))
}

fn remaining(deadline: Instant) -> Result<PollTimeout, LabError> {
    timeout(deadline.saturating_duration_since(Instant::now()))
}

/// A descriptor that becomes readable when the child ends.
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two integers and touches no memory of ours.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let number = i32::try_from(number).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that understands the tracer's command line; `body` sees the ready file's name in `$ready`.
    fn program(directory: &Path, body: &str) -> PathBuf {
        let path = directory.join("program");
        let find_ready = "while [ $# -gt 0 ]; do [ \"$1\" = --ready-file ] && ready=$2; shift; done";
        fs::write(&path, format!("#!/bin/sh\n{find_ready}\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_tracer_is_awaited_interrupted_and_heard() {
        if crate::lab::cannot_run("a_tracer_is_awaited_interrupted_and_heard") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let namespace = Namespace::new("test").unwrap();
        // The shell runs a trap only between commands: it waits for a reader of a pipe that nobody writes to.
        let body = "mkfifo $TMPDIR/never; trap 'echo last; kill $!; exit 0' INT; echo first; cat <>$TMPDIR/never & \
                    touch $ready.new; mv $ready.new $ready; wait";
        let mut tracer = Tracer::start_json(&program(directory.path(), body), &namespace, Detail::Full).unwrap();
        tracer.await_armed().unwrap();
        let said = tracer.stop().unwrap();
        assert!(said.status.success());
        assert_eq!(said.stdout, "first\nlast\n");
    }

    #[test]
    fn a_tracer_that_ends_early_is_reported_at_once_with_its_error() {
        if crate::lab::cannot_run("a_tracer_that_ends_early_is_reported_at_once_with_its_error") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let namespace = Namespace::new("test").unwrap();
        let program = program(directory.path(), "echo 'error: no BTF' >&2; exit 1");
        let error = Tracer::start_json(&program, &namespace, Detail::Full).unwrap().await_armed().unwrap_err().to_string();
        assert_eq!(error, "the tracer ended before it was armed (exit status: 1): error: no BTF");
    }
}
