//! Processes as /proc shows them. They end while one looks, and some may not be looked into: each such one only has not what is looked for.

use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use procfs::process::{FDTarget, Process, all_processes};

/// Looks at one process after the other, until it breaks off; false where the time was up before.
pub(crate) fn each(limit: Duration, mut look: impl FnMut(Process) -> ControlFlow<()>) -> bool {
    let end = Instant::now() + limit;
    for process in all_processes().into_iter().flatten().flatten() {
        if Instant::now() >= end {
            return false;
        }
        if look(process).is_break() {
            break;
        }
    }
    true
}

/// The inode numbers of a process' sockets.
pub(crate) fn sockets(process: &Process) -> impl Iterator<Item = u64> {
    let files = process.fd().into_iter().flatten().flatten();
    files.filter_map(|file| if let FDTarget::Socket(inode) = file.target { Some(inode) } else { None })
}

/// The number of a process, and its name as the kernel has it.
pub(crate) fn named(process: &Process) -> Option<(u32, String)> {
    let pid = u32::try_from(process.pid()).ok()?;
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned()))
}

/// Whether a process is in the network namespace of this number.
pub(crate) fn is_in(process: &Process, netns: u32) -> bool {
    let place = fs::read_link(format!("/proc/{}/ns/net", process.pid()));
    place.is_ok_and(|link| link.as_os_str() == format!("net:[{netns}]").as_str())
}

/// Whether somebody has stopped a process (`SIGSTOP`, Ctrl-Z). One that has ended is not.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.is_some_and(|stat| stat.state == 'T')
}
