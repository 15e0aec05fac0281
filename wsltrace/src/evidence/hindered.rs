//! What keeps a server from accepting: it has as many files open as it may, or its only thread is busy with something else. By what /proc
//! tells of it at one moment, which proves nothing of a moment before.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use procfs::process::{FDTarget, LimitValue, Process};
use serde::{Deserialize, Serialize};

use super::sockets::Found;
use super::told::OrTold as _;
use crate::kernel::processes;

/// The process that is to accept the connections of a socket whose queue is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hindered {
    /// Its number.
    pub pid: u32,
    /// What keeps it.
    pub by: Hindrance,
}

/// What keeps a server from accepting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hindrance {
    /// It has as many files open as it may, so that `accept` fails (`EMFILE`).
    Files(FileLimit),
    /// What its only thread does instead.
    Work(Work),
}

/// `RLIMIT_NOFILE` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileLimit {
    /// So many files it may have open.
    pub soft: u64,
    /// So far it may raise that itself; `None` where nothing limits it.
    pub hard: Option<u64>,
}

/// What a thread does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It runs.
    Computes,
    /// It waits for some time to pass.
    Sleeps,
    /// It waits for another process to end.
    AwaitsProcess,
    /// It waits for a lock, or for another process to let one go.
    AwaitsLock,
    /// It waits for what the other end of another connection sends.
    Reads(#[schemars(with = "String")] SocketAddr),
    /// It waits until the other end of another connection takes what it sends.
    Writes(#[schemars(with = "String")] SocketAddr),
    /// It waits for this file, pipe or socket.
    Awaits(String),
}

/// A system call that a thread waits in, as far as it tells what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Running,
    Reads(i32),
    Writes(i32),
    Sleeps,
    AwaitsProcess,
    AwaitsLock,
}

/// What keeps the server that has this socket, where /proc tells of it within this time. The connections of a socket that several
/// processes have are any's to accept.
pub(super) fn kept(found: &Found, limit: Duration) -> Option<Hindered> {
    let holders = holders(found.inode, limit);
    let of_files = |process: &Process| {
        Some(Hindrance::Files(used_up(process).or_told(found.listener.netns, "read the limits of a server")??))
    };
    let of_work =
        |process: &Process| Some(Hindrance::Work(work(process).or_told(found.listener.netns, "look at what a server does")??));
    let (process, by) =
        holders.iter().find_map(|process| Some((process, of_files(process)?))).or_else(|| match &holders[..] {
            [only] => Some((only, of_work(only)?)),
            _ => None,
        })?;
    Some(Hindered { pid: u32::try_from(process.pid()).ok()?, by })
}

/// The processes that have a socket; none where not all could be looked at.
fn holders(inode: u64, limit: Duration) -> Vec<Process> {
    let mut holders = Vec::new();
    let all = processes::each(limit, |process| {
        if processes::sockets(&process).any(|socket| socket == inode) {
            holders.push(process);
        }
        ControlFlow::Continue(())
    });
    if all { holders } else { Vec::new() }
}

/// The limit of open files, where every number below it is in use: a file that is opened gets the lowest free one.
fn used_up(process: &Process) -> io::Result<Option<FileLimit>> {
    let limit = process.limits().map_err(io::Error::other)?.max_open_files;
    let (LimitValue::Value(soft), hard) = (limit.soft_limit, limit.hard_limit) else { return Ok(None) };
    let hard = if let LimitValue::Value(hard) = hard { Some(hard) } else { None };
    let numbers: HashSet<u64> =
        process.fd().map_err(io::Error::other)?.flatten().filter_map(|file| u64::try_from(file.fd).ok()).collect();
    let below = numbers.iter().filter(|number| **number < soft).count();
    Ok((u64::try_from(below).unwrap_or(0) == soft && soft > 0).then_some(FileLimit { soft, hard }))
}

/// What the only thread of a process does; `None` where it has more, waits for connections, or that cannot be told.
fn work(process: &Process) -> io::Result<Option<Work>> {
    let stat = process.stat().map_err(io::Error::other)?;
    if stat.num_threads != 1 || stat.state == 'T' {
        return Ok(None);
    }
    let text = match std::fs::read_to_string(format!("/proc/{}/syscall", process.pid())) {
        Ok(text) => text,
        // This kernel does not tell, or the process has ended.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(match call(&text) {
        Some(Call::Running) => Some(Work::Computes),
        Some(Call::Sleeps) => Some(Work::Sleeps),
        Some(Call::AwaitsProcess) => Some(Work::AwaitsProcess),
        Some(Call::AwaitsLock) => Some(Work::AwaitsLock),
        Some(Call::Reads(file)) => object(process, file)?.map(|object| object.map_or_else(Work::Awaits, Work::Reads)),
        Some(Call::Writes(file)) => object(process, file)?.map(|object| object.map_or_else(Work::Awaits, Work::Writes)),
        None => None,
    })
}

/// What an open file is: a connection, by its other end, or the name that the kernel gives it.
fn object(process: &Process, number: i32) -> io::Result<Option<Result<SocketAddr, String>>> {
    let file = process.fd_from_fd(number).map_err(io::Error::other)?;
    Ok(match file.target {
        FDTarget::Socket(inode) => {
            let connections = process.tcp().map_err(io::Error::other)?.into_iter().chain(process.tcp6().into_iter().flatten());
            let other = connections.into_iter().find(|entry| entry.inode == inode).map(|entry| entry.remote_address);
            // The listening socket itself is no work, and neither is what is not TCP.
            other.filter(|other| other.port() != 0).map(|other| Ok(SocketAddr::new(other.ip().to_canonical(), other.port())))
        }
        FDTarget::Path(path) => Some(Err(path.display().to_string())),
        FDTarget::Pipe(_) => Some(Err("a pipe".to_owned())),
        _ => None,
    })
}

/// A line of `/proc/PID/syscall`: `running`, or the number of the system call and its arguments, in hexadecimal.
fn call(line: &str) -> Option<Call> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    if first == "running" {
        return Some(Call::Running);
    }
    let number = first.parse().ok()?;
    let file = words.next().and_then(|word| i32::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    match number {
        libc::SYS_read | libc::SYS_readv | libc::SYS_pread64 | libc::SYS_recvfrom | libc::SYS_recvmsg => file.map(Call::Reads),
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendfile => file.map(Call::Writes),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Some(Call::Sleeps),
        libc::SYS_wait4 | libc::SYS_waitid => Some(Call::AwaitsProcess),
        libc::SYS_futex | libc::SYS_flock => Some(Call::AwaitsLock),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{Call, call};

    #[test]
    fn a_system_call_tells_what_it_waits_for() {
        assert_eq!(call("running\n"), Some(Call::Running));
        let recv = format!("{} 0x4 0x5635ea2f6e80 0x2000 0x0 0x0 0x0 0x7ffce7df5898 0x7f0c8ad28929\n", libc::SYS_recvfrom);
        assert_eq!(call(&recv), Some(Call::Reads(4)));
        assert_eq!(call(&format!("{} 0x1", libc::SYS_clock_nanosleep)), Some(Call::Sleeps));
        // An event loop that waits for connections is idle.
        for idle in [libc::SYS_epoll_pwait, libc::SYS_accept4, libc::SYS_ppoll, libc::SYS_pselect6] {
            assert_eq!(call(&format!("{idle} 0x4 0x1")), None);
        }
        for strange in ["", "-1 0x7ffd 0x7f", "x"] {
            assert_eq!(call(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_process_with_free_numbers_has_not_used_up_its_files() {
        let own = procfs::process::Process::myself().unwrap();
        assert_eq!(super::used_up(&own).unwrap(), None);
    }
}
