//! The tool's own server as a child process, ended with its handle.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wsltrace::lab::{LabError, Namespace};

/// `wsltrace bench --serve`.
#[derive(Debug)]
pub struct Server {
    child: Child,
    talk: BufReader<ChildStderr>,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// Starts it, in a namespace where one is given; it listens when this returns.
    pub fn start(binary: &Path, namespace: Option<&Namespace>) -> Result<Self, Box<dyn Error>> {
        Self::start_at(binary, namespace, "127.0.0.1:0")
    }

    /// Starts it on an address of its own.
    pub fn start_at(binary: &Path, namespace: Option<&Namespace>, address: &str) -> Result<Self, Box<dyn Error>> {
        let spawn = || {
            let mut command = Command::new(binary);
            command.args(["bench", "--serve", address]).stderr(Stdio::piped());
            command.spawn().map_err(|source| LabError::Io { doing: "start the server".into(), source })
        };
        let mut child = namespace.map_or_else(spawn, |namespace| namespace.run(spawn))?;
        let talk = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        let mut server = Self { child, talk, address: String::new() };
        let line = server.says()?;
        // `serving 128 bytes on 127.0.0.1:40000; Ctrl-C ends it`
        let address = line.split(" on ").nth(1).and_then(|rest| rest.split(';').next());
        address.ok_or_else(|| line.clone())?.clone_into(&mut server.address);
        Ok(server)
    }

    /// The next line that it says; waits for it.
    pub fn says(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.talk.read_line(&mut line)?;
        Ok(line)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which the client notices.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
