//! Runs another program for its answer, with a limit on its time.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Between two looks whether a program that has answered has ended.
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long the programs that list firewalls and policies may take. They need seconds for tens of thousands of rules, and on a machine
/// that is busy; without their answer a rule is told without its text, and less aptly mended.
pub(crate) const LISTING_LIMIT: Duration = Duration::from_secs(10);
/// Longest answer that is read, bytes.
const MAX_LEN: u64 = 16 << 20;

/// What the program writes to stdout; an error when it cannot be started, fails, or is not done in time (it is killed then).
pub(crate) fn output_within(limit: Duration, command: &mut Command) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Err(io::Error::other(format!("{name} has no output"))) };
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_LEN).read_to_end(&mut bytes);
        // Nobody waits any longer when the time was up.
        drop(sender.send(read.map(|_| bytes)));
    });
    let end = Instant::now() + limit;
    let answer = receiver.recv_timeout(limit);
    // It may close its output and go on.
    let mut pause = SHORTEST_PAUSE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if answer.is_err() || Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} did not end in time")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    let bytes = answer.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{name} gave no answer in time")))??;
    if !status.success() {
        return Err(io::Error::other(format!("{name} failed: {status}")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn answers_failures_and_silence_are_told_apart() {
        let run = |program: &str, argument: &str| output_within(Duration::from_millis(300), Command::new(program).arg(argument));
        assert_eq!(run("echo", "hello").unwrap(), "hello\n");
        assert_eq!(run("sleep", "60").unwrap_err().kind(), io::ErrorKind::TimedOut);
        let silent = output_within(Duration::from_millis(300), Command::new("sh").args(["-c", "exec >&-; sleep 60"]));
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut, "it closes its output and stays");
        assert!(run("false", "").unwrap_err().to_string().starts_with("false failed"));
        assert_eq!(run("/nowhere/at/all", "").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
