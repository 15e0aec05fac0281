//! The command after `--`: the client whose connection is to be traced. It runs as the person behind sudo, in the namespace
//! and at the terminal that wsltrace was started in, and tracing ends with it.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Gid, Pid, Uid, User, access, getgrouplist, getpgrp, setgroups, setresgid, setresuid, tcgetpgrp};
use tokio::process::{Child, Command};

use crate::causes::reason;
use crate::command::Failure;
use crate::escape::shell_word;
use crate::kernel::person;

/// How long a command may take to end once it was asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A limit of open files, soft and hard.
pub(super) type Limit = (u64, u64);

/// What sudo adds to the environment, which the person's own shell does not have.
const OF_SUDO: [&str; 5] = ["SUDO_COMMAND", "SUDO_USER", "SUDO_UID", "SUDO_GID", "SUDO_HOME"];

/// The person behind sudo.
struct Person {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// What the account says of them, where there is one.
    account: Option<User>,
}

impl Person {
    /// From what sudo left in the environment; `None` when we are not root or root itself has called.
    fn behind_sudo() -> Result<Option<Self>, Failure> {
        let Some((uid, gid)) = person::behind_sudo() else { return Ok(None) };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let account = User::from_uid(uid)?;
        let groups = match &account {
            Some(account) => getgrouplist(&CString::new(account.name.as_bytes())?, gid)?,
            None => vec![gid],
        };
        Ok(Some(Self { uid, gid, groups, account }))
    }

    fn set_environment(&self, command: &mut Command) {
        for name in OF_SUDO {
            command.env_remove(name);
        }
        if let Some(account) = &self.account {
            command.env("HOME", &account.dir).env("SHELL", &account.shell);
            command.env("USER", &account.name).env("LOGNAME", &account.name);
        }
    }

    /// Becomes this person; between fork and exec.
    fn become_them(&self) -> nix::Result<()> {
        setgroups(&self.groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }
}

/// A command that can be started.
pub(super) struct Client {
    command: Command,
    name: String,
    /// The command as one would type it, and who runs it.
    pub(super) line: String,
}

impl Client {
    /// Prepares a command of at least one word; with `stdout_is_taken` it writes to stderr; `files` is the limit of open files that it shall have.
    pub(super) fn prepare(words: &[OsString], stdout_is_taken: bool, files: Option<Limit>) -> Result<Option<Self>, Failure> {
        let [program, arguments @ ..] = words else { return Ok(None) };
        let name = program.to_string_lossy().into_owned();
        if let Some(why) = obstacle(program, std::env::var_os("PATH").as_deref()) {
            let hint = match why {
                NO_PROGRAM => {
                    "write it as in a shell, or with its whole path; a shell's own words need: -- sh -c '...'".to_owned()
                }
                NOT_EXECUTABLE => format!("chmod +x {0}, or name its interpreter: -- sh {0}", shell_word(&name)),
                _ => "name a program".to_owned(),
            };
            return Err(Failure::usage(format!("cannot run {}: {why}", shell_word(&name)), hint));
        }
        let person = Person::behind_sudo()?;
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        if stdout_is_taken {
            // Stdout holds JSON lines or an export, and nothing else.
            command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        }
        let mut line = words.iter().map(|word| shell_word(&word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        if let Some(person) = &person {
            person.set_environment(&mut command);
            let name = person.account.as_ref().map_or_else(|| format!("user {}", person.uid), |account| account.name.clone());
            line = format!("{line} (as {name})");
        }
        let before_exec = move || {
            if let Some((soft, hard)) = files {
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            }
            if let Some(person) = &person {
                person.become_them()?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec this makes system calls only, on memory that was allocated before.
        unsafe { command.pre_exec(before_exec) };
        Ok(Some(Self { command, name, line }))
    }

    /// Starts it.
    pub(super) fn start(mut self) -> Result<Running, Failure> {
        let child = self.command.spawn().map_err(|error| Failure {
            message: format!("cannot run {}: {}", shell_word(&self.name), reason(&error)),
            hint: Some("check that you may run it, without wsltrace".to_owned()),
            status: 1,
        })?;
        Ok(Running { child, name: self.name, interrupted: false })
    }
}

/// A command that runs. Dropping it kills it.
pub(super) struct Running {
    child: Child,
    name: String,
    interrupted: bool,
}

impl Running {
    /// Waits for its end, and says how it ended.
    pub(super) async fn ended(&mut self) -> io::Result<String> {
        let status = self.child.wait().await?;
        Ok(format!("{} ended: {}", shell_word(&self.name), words_of(status)))
    }

    /// Ctrl-C: the command decides how it ends, and tracing ends with it. False when it was asked before.
    pub(super) fn interrupt(&mut self) -> bool {
        if self.interrupted {
            return false;
        }
        self.interrupted = true;
        // A terminal has told everybody in the foreground already.
        if !is_in_foreground() {
            self.send(Signal::SIGINT);
        }
        true
    }

    /// Asks it to end, and sees to it.
    pub(super) async fn dismiss(mut self) -> io::Result<()> {
        self.send(Signal::SIGTERM);
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => self.child.kill().await,
        }
    }

    fn send(&self, signal: Signal) {
        // It has no number any longer once it was waited for.
        if let Some(pid) = self.child.id()
            && let Err(error) = kill(Pid::from_raw(pid.cast_signed()), signal)
        {
            log::debug!("cannot send {signal} to {}: {error}", self.name);
        }
    }
}

fn words_of(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "it succeeded (exit status 0)".to_owned(),
        Some(code) => format!("it failed (exit status {code})"),
        None => status.to_string(),
    }
}

fn is_in_foreground() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|foreground| foreground == getpgrp())
}

const NO_PROGRAM: &str = "there is no such program";
const NOT_EXECUTABLE: &str = "it is not executable";
const A_DIRECTORY: &str = "it is a directory";

/// Why the kernel would not run a program of this name, looked for as a shell does; `None` where it would.
fn obstacle(program: &OsStr, path: Option<&OsStr>) -> Option<&'static str> {
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.as_bytes().contains(&b'/') {
        let path = Path::new(program);
        return match () {
            () if runs(path) => None,
            () if path.is_dir() => Some(A_DIRECTORY),
            () if path.exists() => Some(NOT_EXECUTABLE),
            () => Some(NO_PROGRAM),
        };
    }
    let is_found = || path.is_some_and(|path| std::env::split_paths(path).any(|folder: PathBuf| runs(&folder.join(program))));
    (program.is_empty() || !is_found()).then_some(NO_PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let obstacle_to = |program: &str, path: &str| obstacle(program.as_ref(), Some(path.as_ref()));
        assert_eq!(obstacle_to("sh", "/nowhere:/bin"), None);
        assert_eq!(obstacle_to("/bin/sh", ""), None);
        for (program, path, why) in [
            ("sh", "/nowhere", NO_PROGRAM),
            ("", "/bin", NO_PROGRAM),
            ("no-such", "/bin", NO_PROGRAM),
            ("/no/such", "/bin", NO_PROGRAM),
            ("/etc/passwd", "/bin", NOT_EXECUTABLE),
            ("/bin", "/", A_DIRECTORY),
        ] {
            assert_eq!(obstacle_to(program, path), Some(why), "{program} in {path}");
        }
        assert_eq!(obstacle("sh".as_ref(), None), Some(NO_PROGRAM));
    }

    #[test]
    fn an_end_is_told_with_its_status() {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(words_of(ExitStatus::from_raw(0)), "it succeeded (exit status 0)");
        assert_eq!(words_of(ExitStatus::from_raw(7 << 8)), "it failed (exit status 7)");
        assert!(words_of(ExitStatus::from_raw(2)).contains("SIGINT"));
    }
}
