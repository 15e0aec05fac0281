//! What keeps a server from accepting its connections, and what helps: somebody has stopped it, it has no number left for another file, or its
//! only thread is busy.

use super::case::{Case, Finding};
use crate::escape::escape;
use crate::evidence::{FileLimit, Hindered, Hindrance, Listener, Work};

/// As many files as a server is given at least.
const MANY_FILES: u64 = 65_536;
/// `fs.nr_open` as it is by itself: no process may have more.
const MOST_FILES: u64 = 1_048_576;

/// A finding of a server that does not accept, with what helps it.
pub(super) fn relieved(case: &Case, listener: Option<&Listener>, finding: Finding) -> Finding {
    let stopped = listener.and_then(|l| l.pid).filter(|pid| case.evidence.stopped.contains(pid));
    if let Some(pid) = stopped {
        let summary = format!("{}; that process is stopped, as Ctrl-Z does it", finding.summary);
        let advice = "# `fg` in its terminal has it go on; from anywhere else:".to_owned();
        return Finding { summary, ..finding }.remedy([advice, format!("sudo kill -CONT {pid}")]);
    }
    let hindered = case.evidence.hindered.as_ref().filter(|_| listener.is_some_and(|listener| listener.queue > 0));
    match hindered {
        Some(Hindered { pid, by: Hindrance::Files(limit) }) => without_files(listener, *pid, limit, finding),
        Some(Hindered { pid, by: Hindrance::Work(work) }) => busy(case, listener, *pid, work, finding),
        None => finding.remedy(relieve(case, listener)),
    }
}

fn without_files(listener: Option<&Listener>, pid: u32, limit: &FileLimit, finding: Finding) -> Finding {
    let FileLimit { soft, hard } = *limit;
    let summary = format!(
        "{}; most likely because {} has as many files and connections open as it may ({soft}, RLIMIT_NOFILE), so that accept fails (EMFILE)",
        finding.summary,
        it(listener, pid)
    );
    // Up to the limit to which it may raise its own, where that is of use: not every root may raise that one.
    let plenty = soft.saturating_mul(4).clamp(MANY_FILES, MOST_FILES);
    let wanted = hard.filter(|hard| *hard >= soft.saturating_mul(4)).map_or(plenty, |hard| hard.min(plenty));
    let value = if hard.is_some_and(|hard| hard < wanted) { wanted.to_string() } else { format!("{wanted}:") };
    let remedy = [
        format!("sudo prlimit --pid {pid} --nofile={value}"),
        format!(
            "# and for its next start: `ulimit -n {wanted}` before it, LimitNOFILE={wanted} in its unit, or docker run --ulimit nofile={wanted}"
        ),
        "# where it only gathers what it forgets to close, that helps for a while; what it has open:".to_owned(),
        format!("sudo ls -l /proc/{pid}/fd"),
    ];
    Finding { summary, ..finding }.remedy(remedy)
}

fn busy(case: &Case, listener: Option<&Listener>, pid: u32, work: &Work, finding: Finding) -> Finding {
    let does = match work {
        Work::Computes => "was computing".to_owned(),
        Work::Sleeps => "was asleep".to_owned(),
        Work::AwaitsProcess => "was waiting for another process to end".to_owned(),
        Work::AwaitsLock => "was waiting for a lock".to_owned(),
        Work::Reads(other) => format!("was waiting for what {other} sends on another connection"),
        Work::Writes(other) => format!("was waiting for {other} to take what it sends on another connection"),
        Work::Awaits(file) => format!("was waiting for {}", escape(file)),
    };
    let summary = format!("{}; when it was looked at, the only thread of {} {does}", finding.summary, it(listener, pid));
    let several = "# most likely it serves one connection after the other: have it use threads, workers or an event loop, such as python's ThreadingHTTPServer, gunicorn --threads 4, PHP_CLI_SERVER_WORKERS=4 php -S";
    let other = match work {
        Work::Reads(other) | Work::Writes(other) => {
            Some(format!("# until then, end what {other} belongs to, or give connections a timeout"))
        }
        _ => None,
    };
    let look = case.root(&format!("ss -tnp 'sport = :{}'", case.journey.last_destination().1));
    let stack = format!("sudo cat /proc/{pid}/status /proc/{pid}/stack");
    Finding { summary, ..finding }.remedy([several.to_owned()]).remedy(other).remedy([look, stack])
}

/// The process, which the summary has named where it is the listener's.
fn it(listener: Option<&Listener>, pid: u32) -> String {
    let named = listener.is_some_and(|listener| listener.pid == Some(pid));
    if named { "that process".to_owned() } else { format!("process {pid}, which has the same socket,") }
}

/// What helps a server that does not accept fast enough.
fn relieve(case: &Case, listener: Option<&Listener>) -> Vec<String> {
    let port = case.journey.last_destination().1;
    let look = case.root(&format!("ss -ltnp 'sport = :{port}'"));
    let stack = listener.and_then(|l| l.pid).map(|pid| format!("sudo cat /proc/{pid}/status /proc/{pid}/stack"));
    let small = case.sysctl("net.core.somaxconn").and_then(|value| value.parse::<u32>().ok());
    let raise = small.filter(|limit| *limit < 4096).map(|_| case.root("sysctl -w net.core.somaxconn=4096"));
    let advice =
        "# see why the server does not accept: it hangs, or its listen() backlog is too small for such bursts".to_owned();
    // The limit is taken when a server calls listen().
    let restart = raise.as_ref().map(|_| "# and restart the server: its queue keeps the limit that it was made with".to_owned());
    [look].into_iter().chain(stack).chain(raise).chain(restart).chain([advice]).collect()
}
