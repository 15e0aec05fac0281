//! The real binary at work on the lab.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use wsltrace::lab::Lab;

use super::{Outcome, PORT};

/// A bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);

/// The real binary on the lab; dropping it ends it.
pub struct Tracer {
    child: Child,
    lines: Receiver<String>,
}

impl Tracer {
    /// Starts it on the port of the rulesets and waits until it is armed.
    pub fn start(binary: &Path, lab: &Lab) -> Outcome<Self> {
        let arguments = ["--json", "--port", &PORT.to_string(), "--netns"];
        let mut child = Command::new(binary).args(arguments).arg(lab.wsl.path()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("the tracer has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let tracer = Self { child, lines };
        let armed: Value = serde_json::from_str(&tracer.lines.recv_timeout(PATIENCE)?)?;
        if armed["type"] == "armed" { Ok(tracer) } else { Err(format!("not armed: {armed}").into()) }
    }

    /// The next journey of a first attempt.
    pub fn journey(&self) -> Outcome<Value> {
        loop {
            let line: Value = serde_json::from_str(&self.lines.recv_timeout(PATIENCE)?)?;
            // The first attempt of each connection is the one that is asked about.
            if line["type"] == "journey" && line["attempt"] == 1 {
                return Ok(line);
            }
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It is our own child and not yet waited for, so the number is still its.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
