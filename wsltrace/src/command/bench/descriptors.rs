//! Open files: what the clients and the tracer need is counted, the limit is raised as far as it may be, and where that is too low it is
//! said what to type.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bench::rounds::Plan;
use crate::bench::trace::Tracing;
use crate::command::Failure;

/// What a thread of the load opens for itself: how it waits for its sockets and is woken, and the timer of a fixed rate.
const A_THREAD: u64 = 5;

/// Raises the limit of open files to what is allowed, and higher where that may be done and so many are needed; gives what it is now.
pub(super) fn raise(needed: u64) -> Result<u64, Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if needed > hard && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
        return Ok(needed);
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Makes room for the clients, and for the tracer where there is one; an error where the clients have none, and no tracer where it has
/// none.
pub(super) fn make_room(plan: &Plan, tracing: Result<Tracing, String>) -> Result<Result<Tracing, String>, Failure> {
    let threads = u64::try_from(std::thread::available_parallelism()?.get()).unwrap_or(u64::MAX);
    let beside = open_now()? + threads.min(plan.clients.into()).saturating_mul(A_THREAD);
    let (tracing, tracers) = match tracing.and_then(|tracing| Ok((tracing.descriptors().map_err(|it| it.to_string())?, tracing)))
    {
        Ok((most, tracing)) => (Ok(tracing), most),
        Err(why) => (Err(why), 0),
    };
    let clients = u64::from(plan.clients);
    let needed = clients + beside;
    let allowed = raise(needed + tracers)?;
    if allowed < needed {
        let message = format!("{clients} clients need {needed} open files, and {allowed} are allowed");
        let hint = format!("{}{}", allow(needed), fewer(allowed, beside));
        return Err(Failure { message, hint: Some(hint), status: 1 });
    }
    if allowed < needed + tracers {
        let all = needed + tracers;
        return Ok(Err(format!(
            "with {clients} clients it may need {all} open files, and {allowed} are allowed: {}{}",
            allow(all),
            fewer(allowed, beside + tracers)
        )));
    }
    Ok(tracing)
}

/// Allows the shell that it is typed in so many open files, and what is started there from then on.
fn allow(files: u64) -> String {
    format!("sudo prlimit --pid $$ --nofile={files}")
}

/// The advice to have fewer clients, where there is room for some.
fn fewer(allowed: u64, beside: u64) -> String {
    match allowed.saturating_sub(beside) {
        0 => String::new(),
        room => format!("; or fewer clients: -c {room}"),
    }
}

/// How many files are open.
fn open_now() -> io::Result<u64> {
    let mut open = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        entry?;
        open += 1;
    }
    // One of them is the folder.
    Ok(open - 1)
}
