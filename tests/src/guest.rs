//! A copy of this machine's root for programs that would change it, such as a firewall's manager: what they write, and the
//! processes that they leave, end with it. Its network is that of a namespace of the lab.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;
use wsltrace::lab::{LabError, Namespace};

/// Lays a root of the machine's files and an empty layer, and goes on as a shell in there. `$1`: a directory; `$2`: packages.
const ENTER: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" overlay "$1/root"
mkdir "$1/root/packages"
cp "$2"/*.deb "$1/root/packages" || rmdir "$1/root/packages"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
# Only to be looked at: what is written there is everybody's. Old machines have none, and few programs ask.
mount -t cgroup2 -o ro cgroup2 sys/fs/cgroup || true
mount --rbind /dev dev
mount -t tmpfs tmpfs run
exec chroot . sh -s
"#;
/// What follows a command's output, with its exit status.
const END: &str = "wsltrace-guest-end";

/// A shell in such a copy. Dropping it ends all that was started in it.
#[derive(Debug)]
pub struct Guest {
    shell: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Guest {
    /// Makes the copy, in the network of this namespace, and installs the packages in this directory there.
    pub fn new(network: &Namespace, packages: &Path) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::Builder::new().prefix("wsltrace-guest-").tempdir()?;
        let mut command = Command::new("unshare");
        // The shell is the first process of its own, and the kernel ends the others with it.
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        command.arg(directory.path()).arg(packages).stdin(Stdio::piped()).stdout(Stdio::piped());
        let start =
            || command.spawn().map_err(|source| LabError::Io { doing: "start a shell in a copy of the root".into(), source });
        let mut shell = network.run(start)?;
        let (Some(commands), Some(answers)) = (shell.stdin.take(), shell.stdout.take()) else { return Err("no pipes".into()) };
        let mut guest = Self { shell, commands, answers: BufReader::new(answers), _directory: directory };
        guest.run("test ! -d packages || DEBIAN_FRONTEND=noninteractive dpkg --force-confnew --install packages/*.deb")?;
        Ok(guest)
    }

    /// Runs a shell's line and gives what it printed; an error when it fails.
    pub fn run(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        writeln!(self.commands, "{{ {line}\n}} </dev/null 2>&1; echo; echo {END} $?")?;
        let mut said = String::new();
        loop {
            let start = said.len();
            if self.answers.read_line(&mut said)? == 0 {
                return Err(format!("the copy of the root ended during '{line}': {said}").into());
            }
            if let Some(status) = said[start..].strip_prefix(END) {
                let succeeded = status.trim() == "0";
                said.truncate(start);
                return if succeeded { Ok(said) } else { Err(format!("'{line}' failed: {said}").into()) };
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing is left to be done when it has ended by itself.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
