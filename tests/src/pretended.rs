//! A pretended WSL 2: the binary runs in a mount namespace of its own, in which the kernel's release, `wslinfo`, `/etc/wsl.conf` and
//! Windows' drive with a `powershell.exe` are what a test wants. Nothing in the binary knows of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts everything into its place and becomes the program; `$ROOT` is a folder with what the test wrote.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mkdir -p "$ROOT/mnt/c/Windows/System32/WindowsPowerShell/v1.0" "$ROOT/run/WSL" "$ROOT/bin" "$ROOT/binfmt" "$ROOT/etc"
powershell="$ROOT/mnt/c/Windows/System32/WindowsPowerShell/v1.0/powershell.exe"
printf '#!/bin/sh\necho "$PWD $WSL_INTEROP $*" >> %s/asked\ncat %s/answer\n' "$ROOT" "$ROOT" > "$powershell"
printf '#!/bin/sh\ncase $1 in --networking-mode) cat %s/mode ;; --wsl-version) echo 2.6.3 ;; esac\n' "$ROOT" > "$ROOT/bin/wslinfo"
chmod 755 "$powershell" "$ROOT/bin/wslinfo"
: > "$ROOT/run/WSL/1_interop"
echo enabled > "$ROOT/binfmt/status"
cp "$ROOT/interop" "$ROOT/binfmt/WSLInterop"
echo 6.6.87.2-microsoft-standard-WSL2 > "$ROOT/release"
mount -t overlay -o "lowerdir=$ROOT/etc:/etc" none /etc
mount --bind "$ROOT/mnt" /mnt
mount --bind "$ROOT/run" /run
mount --bind "$ROOT/release" /proc/sys/kernel/osrelease
if [ -d /proc/sys/fs/binfmt_misc ]; then mount --bind "$ROOT/binfmt" /proc/sys/fs/binfmt_misc; fi
unset WSL_INTEROP
PATH="$ROOT/bin:$PATH" exec "$@"
"#;

/// What is pretended.
#[derive(Debug)]
pub struct Pretended {
    root: tempfile::TempDir,
}

impl Pretended {
    /// A WSL whose `wslinfo` names this mode, and whose PowerShell prints this answer.
    pub fn new(mode: &str, answer: &[u8]) -> std::io::Result<Self> {
        let root = tempfile::tempdir()?;
        fs::write(root.path().join("mode"), format!("{mode}\n"))?;
        fs::write(root.path().join("answer"), answer)?;
        fs::write(root.path().join("interop"), "enabled\n")?;
        fs::create_dir(root.path().join("etc"))?;
        Ok(Self { root })
    }

    /// The same with this `/etc/wsl.conf`.
    pub fn with_conf(self, text: &str) -> std::io::Result<Self> {
        fs::write(self.root.path().join("etc/wsl.conf"), text)?;
        Ok(self)
    }

    /// The same where Linux does not start Windows' programs.
    pub fn without_interop(self) -> std::io::Result<Self> {
        fs::write(self.root.path().join("interop"), "disabled\n")?;
        Ok(self)
    }

    /// The same with a PowerShell that works until [`Self::answer`].
    pub fn that_works(self) -> std::io::Result<Self> {
        let answer = self.root.path().join("answer");
        fs::rename(&answer, self.root.path().join("later"))?;
        nix::unistd::mkfifo(&answer, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)?;
        Ok(self)
    }

    /// Has a PowerShell that works give its answer, once it has been started.
    pub fn answer(&self) -> std::io::Result<()> {
        fs::copy(self.root.path().join("later"), self.root.path().join("answer"))?;
        Ok(())
    }

    /// Runs a program in it; `alone` also without sight of other processes, as a distro has it beside others.
    pub fn command(&self, program: &Path, arguments: &[&str], alone: bool) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if alone {
            command.args(["--pid", "--fork", "--mount-proc"]);
        }
        command.args(["sh", "-c", SCRIPT, "sh"]).arg(program).args(arguments).env("ROOT", self.root.path());
        command
    }

    /// How PowerShell was started, a line each time.
    pub fn asked(&self) -> std::io::Result<Vec<String>> {
        let path: PathBuf = self.root.path().join("asked");
        Ok(if path.exists() { fs::read_to_string(path)?.lines().map(str::to_owned).collect() } else { Vec::new() })
    }
}
