//! The one place where a program of Windows is run. WSL starts `.exe` files for a Linux process by a socket whose name stands in
//! `WSL_INTEROP`; sudo takes both that name and Windows' directories in `PATH` away, so both are found again here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::script::encoded;
use crate::kernel::command::output_within;
use crate::wsl::Wsl;
use crate::wsl::config::Config;

/// `PowerShell`'s path on Windows' drive.
const POWERSHELL: &str = "Windows/System32/WindowsPowerShell/v1.0/powershell.exe";
/// Where the kernel tells how it starts Windows' programs; the second is the name where systemd runs.
const HANDLERS: [&str; 2] = ["/proc/sys/fs/binfmt_misc/WSLInterop", "/proc/sys/fs/binfmt_misc/WSLInterop-late"];
/// Where WSL has the sockets of its sessions, `<pid>_interop`.
const SOCKETS: &str = "/run/WSL";
/// Most generations of processes that are walked up.
const MAX_ANCESTORS: usize = 64;

/// Why Windows could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum InteropError {
    /// There is no Windows around this Linux, or no Linux in this WSL.
    #[error("this is not WSL 2")]
    NotWsl,
    /// Linux does not start Windows' programs.
    #[error("Linux is not allowed to run Windows' programs (WSL's interop is off)")]
    InteropDisabled,
    /// `PowerShell` is not where it should be.
    #[error("there is no {path}")]
    NoPowerShell {
        /// Where it was looked for last.
        path: String,
    },
    /// It took too long.
    #[error("PowerShell gave no answer in {seconds} s")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// It ended with an error.
    #[error("{status}")]
    Failed {
        /// What is known of it.
        status: String,
    },
    /// The answer is not what the script prints.
    #[error("PowerShell's answer was not understood: {0}")]
    Garbage(String),
}

/// Runs programs of Windows.
pub trait Interop {
    /// What a script prints; it is ended when it takes longer than the limit.
    fn powershell(&self, script: &str, limit: Duration) -> Result<String, InteropError>;
}

/// The Windows around this Linux.
#[derive(Clone, Copy, Debug)]
pub struct WindowsInterop {
    wsl: Wsl,
}

impl WindowsInterop {
    /// For the WSL that this is.
    pub fn new(wsl: Wsl) -> Self {
        Self { wsl }
    }
}

impl Interop for WindowsInterop {
    fn powershell(&self, script: &str, limit: Duration) -> Result<String, InteropError> {
        if self.wsl != Wsl::Two {
            return Err(InteropError::NotWsl);
        }
        if is_off(&HANDLERS.map(|path| fs::read_to_string(path).ok()), Path::new("/proc/sys/fs/binfmt_misc/status").exists()) {
            return Err(InteropError::InteropDisabled);
        }
        let conf = fs::read_to_string("/etc/wsl.conf").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let drives = drives(&conf, &mounts);
        let Some(drive) = drives.iter().find(|drive| drive.join(POWERSHELL).exists()) else {
            let path = drives.last().map(|drive| drive.join(POWERSHELL).display().to_string()).unwrap_or_default();
            return Err(InteropError::NoPowerShell { path });
        };
        let named = std::env::var_os("WSL_INTEROP").is_some_and(|socket| Path::new(&socket).exists());
        run(drive, if named { None } else { socket() }, script, limit)
    }
}

/// Runs a drive's `PowerShell`, by another session's socket where one is given.
fn run(drive: &Path, socket: Option<PathBuf>, script: &str, limit: Duration) -> Result<String, InteropError> {
    let path = drive.join(POWERSHELL);
    let mut command = Command::new(&path);
    // In a directory that Windows does not know its programs complain, or do not start.
    command.current_dir(drive).args(["-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand", &encoded(script)]);
    if let Some(socket) = socket {
        command.env("WSL_INTEROP", socket);
    }
    output_within(limit, &mut command).map_err(|error| told_apart(&error, &path, limit))
}

/// What an error of the start or of the run means.
fn told_apart(error: &io::Error, path: &Path, limit: Duration) -> InteropError {
    match error.kind() {
        io::ErrorKind::TimedOut => InteropError::TimedOut { seconds: limit.as_secs() },
        io::ErrorKind::NotFound => InteropError::NoPowerShell { path: path.display().to_string() },
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => InteropError::InteropDisabled,
        _ => InteropError::Failed { status: error.to_string() },
    }
}

/// Whether the kernel says that it starts no Windows programs: from what its handlers say, `None` for one that is not there, and
/// whether it tells of handlers at all.
fn is_off(handlers: &[Option<String>; 2], visible: bool) -> bool {
    let mut there = handlers.iter().flatten().peekable();
    if there.peek().is_none() {
        return visible;
    }
    there.all(|text| text.lines().next().is_some_and(|line| line.trim() == "disabled"))
}

/// Where Windows' drive C may be: by `/etc/wsl.conf`, then by what is mounted.
fn drives(conf: &str, mounts: &str) -> Vec<PathBuf> {
    let config = Config::parse(conf);
    let root = config.get("automount", "root").filter(|root| root.starts_with('/')).unwrap_or("/mnt/");
    let mut drives = vec![Path::new(root).join("c")];
    for mount in mounts.lines() {
        let mut words = mount.split(' ');
        let (Some(source), Some(target), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        let is_c = source.get(..2).is_some_and(|letter| letter.eq_ignore_ascii_case("c:"));
        let target = PathBuf::from(target.replace("\\040", " "));
        if is_c && ["9p", "drvfs", "virtiofs"].contains(&kind) && !drives.contains(&target) {
            drives.push(target);
        }
    }
    drives
}

/// The socket of this process' session, or of the newest one.
fn socket() -> Option<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(SOCKETS).ok()?.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_suffix("_interop")).and_then(|pid| pid.parse::<u32>().ok());
        if let (Some(pid), Ok(metadata)) = (pid, entry.metadata()) {
            found.push((pid, metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
        }
    }
    let pid = choose(&found, &ancestors(), |pid| Path::new("/proc").join(pid.to_string()).exists())?;
    Some(Path::new(SOCKETS).join(format!("{pid}_interop")))
}

/// Which session's socket to take: that of the nearest ancestor, otherwise the newest whose process lives.
fn choose(found: &[(u32, SystemTime)], ancestors: &[u32], lives: impl Fn(u32) -> bool) -> Option<u32> {
    let of_ancestor = ancestors.iter().find(|ancestor| found.iter().any(|(pid, _)| pid == *ancestor)).copied();
    let newest = || found.iter().filter(|(pid, _)| lives(*pid)).max_by_key(|(_, modified)| *modified).map(|(pid, _)| *pid);
    of_ancestor.or_else(newest)
}

/// The processes that this one comes from, the nearest first.
fn ancestors() -> Vec<u32> {
    let parent = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        (parent != 0).then_some(parent)
    };
    std::iter::successors(Some(std::process::id()), parent).take(MAX_ANCESTORS).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_is_disabled_or_missing_is_interop_that_is_off() {
        let enabled = || Some("enabled\ninterpreter /init\n".to_owned());
        let disabled = || Some("disabled\ninterpreter /init\n".to_owned());
        assert!(!is_off(&[enabled(), None], true));
        assert!(!is_off(&[None, enabled()], true));
        assert!(!is_off(&[disabled(), enabled()], true));
        assert!(is_off(&[disabled(), None], true));
        assert!(is_off(&[None, None], true));
        // Where the handlers cannot be seen, starting the program will tell.
        assert!(!is_off(&[None, None], false));
    }

    #[test]
    fn the_drive_is_found_by_configuration_and_by_mounts() {
        assert_eq!(drives("", ""), [PathBuf::from("/mnt/c")]);
        assert_eq!(drives("[automount]\nroot = /\n", ""), [PathBuf::from("/c")]);
        assert_eq!(drives("[automount]\nroot=win\n", ""), [PathBuf::from("/mnt/c")]);
        let mounts = "none /mnt/wsl tmpfs rw 0 0\nC:\\134 /mnt/c 9p rw,aname=drvfs;path=C:\\;uid=1000 0 0\n\
                      C:\\134 /media/my\\040disk 9p rw 0 0\nD:\\134 /mnt/d 9p rw 0 0\n/dev/sdc / ext4 rw 0 0\nc:\n";
        assert_eq!(drives("", mounts), [PathBuf::from("/mnt/c"), PathBuf::from("/media/my disk")]);
    }

    #[test]
    fn the_nearest_session_is_taken_then_the_newest_that_lives() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let found = [(1, at(1)), (10, at(50)), (20, at(90)), (30, at(40))];
        assert_eq!(choose(&found, &[99, 10, 1], |_| true), Some(10));
        assert_eq!(choose(&found, &[99], |_| true), Some(20));
        assert_eq!(choose(&found, &[99], |pid| pid != 20), Some(10));
        assert_eq!(choose(&found, &[], |_| false), None);
        assert_eq!(choose(&[], &[1], |_| true), None);
    }

    #[test]
    fn errors_are_told_apart() {
        let path = Path::new("/mnt/c/powershell.exe");
        let told = |error: io::Error| told_apart(&error, path, Duration::from_secs(5));
        assert_eq!(told(io::ErrorKind::TimedOut.into()), InteropError::TimedOut { seconds: 5 });
        assert_eq!(told(io::ErrorKind::NotFound.into()), InteropError::NoPowerShell { path: path.display().to_string() });
        assert_eq!(told(io::Error::from_raw_os_error(libc::ENOEXEC)), InteropError::InteropDisabled);
        assert_eq!(told(io::Error::other("x failed: 1")), InteropError::Failed { status: "x failed: 1".to_owned() });
    }

    /// A drive whose `PowerShell` is this file, with escapes. Another process writes it: a file that this one has open for writing may
    /// be open in a child of another test still when it is to be started.
    fn drive(content: &str) -> tempfile::TempDir {
        let drive = tempfile::tempdir().unwrap();
        let path = drive.path().join(POWERSHELL);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = r#"printf %b "$1" > "$2" && chmod 755 "$2""#;
        assert!(Command::new("sh").args(["-c", write, "sh", content]).arg(&path).status().unwrap().success());
        drive
    }

    #[test]
    fn a_program_is_run_on_its_drive_with_its_socket() {
        let drive = drive(r#"#!/bin/sh\necho "$PWD $WSL_INTEROP $4 $5"\n"#);
        let limit = Duration::from_mins(1);
        let said = run(drive.path(), Some(PathBuf::from("/run/WSL/7_interop")), "dir", limit).unwrap();
        let path = drive.path().canonicalize().unwrap();
        assert_eq!(said, format!("{} /run/WSL/7_interop -EncodedCommand ZABpAHIA\n", path.display()));
    }

    #[test]
    fn a_program_that_fails_or_hangs_is_told_apart() {
        let failing = drive(r"#!/bin/sh\nexit 3\n");
        assert!(matches!(run(failing.path(), None, "", Duration::from_mins(1)), Err(InteropError::Failed { .. })));
        let hanging = drive(r"#!/bin/sh\nexec sleep 60\n");
        assert_eq!(run(hanging.path(), None, "", Duration::from_millis(200)), Err(InteropError::TimedOut { seconds: 0 }));
        // What it has said by then is no answer.
        let late = drive(r"#!/bin/sh\ncat late.txt\nexec sleep 60\n");
        fs::write(late.path().join("late.txt"), include_str!("transcripts/late.txt")).unwrap();
        assert_eq!(run(late.path(), None, "", Duration::from_millis(200)), Err(InteropError::TimedOut { seconds: 0 }));
        // What the kernel says to a program of Windows where nothing starts those.
        let foreign = drive(r"MZ\0001\0000");
        assert_eq!(run(foreign.path(), None, "", Duration::from_mins(1)), Err(InteropError::InteropDisabled));
    }

    #[test]
    fn outside_of_wsl_nothing_is_run() {
        for wsl in [Wsl::No, Wsl::One] {
            assert_eq!(WindowsInterop::new(wsl).powershell("", Duration::ZERO), Err(InteropError::NotWsl));
        }
        assert_eq!(ancestors().first(), Some(&std::process::id()));
    }
}
