//! What a killed tracer could leave in the kernel and on disk, and looking for it without disturbing other tracers that may
//! run on the same machine at the same time.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::{fs, process};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How many grace periods the kernel may take to free what lost its last user. Each round waits for one; a chain of link,
/// program and map needs a handful, and kernel workers that wait for a busy processor some more.
const GRACE_PERIODS: usize = 2000;

/// A thing of BPF in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A program's id.
    Program(u32),
    /// A map's id.
    Map(u32),
    /// A link's id.
    Link(u32),
}

/// What a process holds by descriptors.
pub fn held_by(pid: u32) -> io::Result<BTreeSet<Object>> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        match fs::read_to_string(entry?.path()) {
            Ok(text) => held.extend(text.lines().filter_map(object)),
            // Closed since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

/// Everything of BPF in the kernel, of everyone.
///
/// By ids alone, and never by opening them (as listing with their details does): closing the last descriptor of a program
/// array while the kernel still empties it for a closing before leaks a reference, and the array stays for ever. Kernel 6.18
/// does that in `prog_array_map_clear`, which takes a reference for work that may be queued already.
pub fn loaded() -> io::Result<BTreeSet<Object>> {
    let mut all = BTreeSet::new();
    for (command, object) in [
        (PROGRAMS, Object::Program as fn(u32) -> Object),
        (MAPS, Object::Map as fn(u32) -> Object),
        (LINKS, Object::Link as fn(u32) -> Object),
    ] {
        let mut last = 0;
        while let Some(id) = next_id(command, last)? {
            all.insert(object(id));
            last = id;
        }
    }
    Ok(all)
}

/// `BPF_PROG_GET_NEXT_ID`, `BPF_MAP_GET_NEXT_ID` and `BPF_LINK_GET_NEXT_ID`.
const PROGRAMS: i32 = 11;
const MAPS: i32 = 12;
const LINKS: i32 = 31;

/// The id after `last` of the kind that the command is for.
fn next_id(command: i32, last: u32) -> io::Result<Option<u32>> {
    // The kernel's `union bpf_attr` for these commands: start_id, next_id, open_flags.
    let mut attributes = [last, 0, 0];
    // SAFETY: the size is that of the array, which the kernel reads and writes within the call only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    let error = io::Error::last_os_error();
    match result {
        0 => Ok(Some(attributes[1])),
        _ if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        _ => Err(error),
    }
}

/// What some living process holds: by descriptors, or as a map of a program that it holds.
pub fn held_by_anyone() -> Result<BTreeSet<Object>, Box<dyn std::error::Error>> {
    let mut held = BTreeSet::new();
    for pid in fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        // A process may end while it is read: then it holds nothing.
        held.extend(held_by(pid).unwrap_or_default());
    }
    for program in aya::programs::loaded_programs() {
        let program = program?;
        if held.contains(&Object::Program(program.id())) {
            held.extend(program.map_ids()?.unwrap_or_default().into_iter().map(Object::Map));
        }
    }
    Ok(held)
}

/// Waits until none of `objects` is loaded any more, and returns those that stay.
///
/// The kernel frees programs and maps of a dead process after RCU grace periods and on its own workers, and tells nobody.
/// So between two looks this waits for the one event there is, the end of a grace period.
pub fn await_gone(objects: &BTreeSet<Object>) -> Result<BTreeSet<Object>, Box<dyn std::error::Error>> {
    let mut left: BTreeSet<Object> = loaded()?.intersection(objects).copied().collect();
    for _ in 0..GRACE_PERIODS {
        if left.is_empty() {
            break;
        }
        grace_period()?;
        left = loaded()?.intersection(objects).copied().collect();
    }
    Ok(left)
}

/// Objects that were not there `before` and that no living process holds: nobody can ever free them.
pub fn orphans(before: &BTreeSet<Object>) -> Result<BTreeSet<Object>, Box<dyn std::error::Error>> {
    let new: BTreeSet<Object> = loaded()?.difference(before).copied().collect();
    // What is held is looked up after what is loaded, so that a tracer that starts meanwhile is not taken for an orphan.
    let held = held_by_anyone()?;
    await_gone(&new.difference(&held).copied().collect())
}

/// A child of the tracer, watched so that its end can be awaited.
#[derive(Debug)]
pub struct Helper {
    /// Its process id.
    pub pid: u32,
    exit: OwnedFd,
}

impl Helper {
    /// Waits until it has ended; false when it has not within 10 s, which no helper needs once its parent is dead.
    pub fn ends(&self) -> io::Result<bool> {
        let mut watched = [PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut watched, PollTimeout::from(10_000_u16))? > 0)
    }
}

/// The children of a process that have not ended.
pub fn children(pid: u32) -> io::Result<Vec<Helper>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(task?.path().join("children"))?;
        for pid in list.split_whitespace().filter_map(|word| word.parse().ok()) {
            children.push(Helper { pid, exit: pidfd(pid)? });
        }
    }
    Ok(children)
}

/// A descriptor that becomes readable when the process ends. The parent is stopped, so the number is still its child's.
/// A descriptor that becomes readable when a process ends.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two integers and touches no memory of ours.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Names of the files in a directory.
pub fn files(directory: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The named network namespaces of this machine.
pub fn named_namespaces() -> io::Result<BTreeSet<String>> {
    match files(Path::new("/run/netns")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        result => result,
    }
}

/// The nftables ruleset of the namespace that the caller is in.
pub fn ruleset() -> io::Result<String> {
    let output = process::Command::new("nft").args(["list", "ruleset"]).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn object(line: &str) -> Option<Object> {
    let (name, value) = line.split_once(':')?;
    let id = value.trim().parse().ok()?;
    match name {
        "prog_id" => Some(Object::Program(id)),
        "map_id" => Some(Object::Map(id)),
        "link_id" => Some(Object::Link(id)),
        _ => None,
    }
}

/// Waits for the end of an RCU grace period.
fn grace_period() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: the system call takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{Object, object};

    #[test]
    fn descriptors_tell_what_they_hold() {
        assert_eq!(object("prog_id:\t12"), Some(Object::Program(12)));
        assert_eq!(object("map_id:\t7"), Some(Object::Map(7)));
        assert_eq!(object("link_id:\t3"), Some(Object::Link(3)));
        assert_eq!(object("pos:\t0"), None);
        assert_eq!(object("prog_tag:\tabc"), None);
    }
}
