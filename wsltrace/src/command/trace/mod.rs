//! `wsltrace --port N`: put the probes in, read what they see until it is enough, and say what it was.

mod client;
mod event_loop;
mod following;
mod memory;
mod messages;
mod patience;
mod ready_file;
mod session;
mod surroundings;

use self::client::{Client, Limit};
use self::ready_file::ReadyFile;
use self::session::Session;
use super::reporter::Tally;
use super::{Failure, netns, ports, typed_command};
use crate::cli::TraceArgs;
use crate::kernel::check;

/// Traces until something ends it; gives the exit status.
pub fn run(args: &TraceArgs) -> Result<u8, Failure> {
    if args.ports.is_empty() {
        return Err(ports::missing(args.netns.as_deref(), "wsltrace"));
    }
    if args.client.is_empty() && std::env::args_os().next_back().is_some_and(|last| last == "--") {
        let port = args.ports.first().map_or(0, |range| range.first);
        let hint = format!("{} -- curl http://127.0.0.1:{}/, or leave the -- out", typed_command().trim_end_matches(" --"), port);
        return Err(Failure::usage("there is no command after --", hint));
    }
    let machine = check::Machine::read()?;
    let problems = check::problems(&machine, &typed_command());
    if let Some(failure) = untraceable(&problems, machine.root, args.ports.first().map_or(0, |range| range.first)) {
        return Err(failure);
    }
    let ready = args.ready_file.as_deref().map(ReadyFile::prepare).transpose()?;
    let netns = netns(args.netns.as_deref())?;
    let limit = raise_descriptor_limit();
    let client = Client::prepare(&args.client, args.json || args.exports_to_stdout(), limit)?;
    let session = Session::start(args, netns, &machine)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ending = runtime.block_on(session.trace(args, ready, client))?;
    let status = if args.check { ending.status()? } else { 0 };
    Ok(if status == 0 { u8::from(ending.tally.files_failed) } else { status })
}

/// Why nothing can be traced here; `None` where it can. The doctor needs neither a new kernel nor its types.
fn untraceable(problems: &[check::Problem], root: bool, port: u16) -> Option<Failure> {
    let first = problems.first()?;
    let message = problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
    let hint = if root {
        format!("{}; or, without tracing: sudo wsltrace doctor --port {port}", first.hint)
    } else {
        first.hint.clone()
    };
    Some(Failure { message, hint: Some(hint), status: 1 })
}

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
struct Ending {
    tally: Tally,
    /// Records lost.
    lost: u64,
}

impl Ending {
    /// The exit status that `--check` promises.
    fn status(self) -> Result<u8, Failure> {
        match (self.tally.journeys, self.tally.failed, self.lost) {
            (_, 1.., _) => Ok(3),
            (_, 0, 1..) => {
                let lost = self.lost;
                Err(Failure::new(format!("{lost} records were lost: nobody can say whether every attempt was answered")))
            }
            (0, 0, 0) => Ok(4),
            (1.., 0, 0) => Ok(0),
        }
    }
}

/// Every attached position is a descriptor of this process: about 70 a namespace. Gives the limit that was.
fn raise_descriptor_limit() -> Option<Limit> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    raised.inspect_err(|error| log::debug!("cannot raise the limit of open files: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_claims_no_more_than_was_seen() {
        let status = |journeys, failed, lost| {
            Ending { tally: Tally { journeys, failed, files_failed: false }, lost }.status().map_err(|it| it.status)
        };
        assert_eq!(status(3, 0, 0), Ok(0));
        assert_eq!(status(3, 1, 0), Ok(3));
        assert_eq!(status(3, 1, 9), Ok(3));
        assert_eq!(status(0, 0, 0), Ok(4));
        assert_eq!(status(3, 0, 1), Err(1));
        assert_eq!(status(0, 0, 1), Err(1));
    }

    #[test]
    fn where_nothing_can_be_traced_the_doctor_is_named() {
        let problem = |message: &str, hint: &str| check::Problem { message: message.to_owned(), hint: hint.to_owned() };
        let problems =
            [problem("the kernel is too old", "boot a newer kernel"), problem("it describes no types", "build it with BTF")];
        let failure = untraceable(&problems, true, 8080).map(|failure| (failure.message, failure.hint, failure.status));
        let hint = "boot a newer kernel; or, without tracing: sudo wsltrace doctor --port 8080";
        assert_eq!(failure, Some(("the kernel is too old; it describes no types".to_owned(), Some(hint.to_owned()), 1)));
        // Who only has to type sudo is told that alone.
        let problems = [problem("not root", "sudo wsltrace --port 8080")];
        let hint = untraceable(&problems, false, 8080).and_then(|failure| failure.hint);
        assert_eq!(hint.as_deref(), Some("sudo wsltrace --port 8080"));
        assert!(untraceable(&[], true, 8080).is_none());
    }
}
