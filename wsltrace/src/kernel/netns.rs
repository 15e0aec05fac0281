//! Network namespaces: opening one that a user names, working inside of one, and finding those that /proc and the usual
//! bind mounts show.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use thiserror::Error;

use crate::escape::shell_word;

/// Where `ip netns` and docker bind the namespaces that they make.
const BIND_FOLDERS: [&str; 3] = ["/run/netns", "/var/run/netns", "/run/docker/netns"];

/// Why a network namespace cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// It could not be opened.
    #[error("cannot open the network namespace {path}")]
    Open {
        /// The file that stands for it.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is none.
    #[error(
        "{path} is not a network namespace: name one of /run/netns, the number of a process, or a path such as /proc/PID/ns/net"
    )]
    NotOne {
        /// The file.
        path: String,
    },
    /// There is no process of that number.
    #[error("there is no process {0}: name a running process, a path, or a name of /run/netns")]
    NoProcess(String),
    /// There is no namespace of that name.
    #[error(
        "there is no network namespace named '{0}': `ip netns list` shows the names, `docker inspect -f '{{{{.State.Pid}}}}' NAME` a container's process"
    )]
    NoName(String),
    /// It could not be entered.
    #[error("cannot enter the network namespace {label}: run as root")]
    Enter {
        /// How it was named.
        label: String,
        /// Why.
        source: io::Error,
    },
    /// No thread could be started for it.
    #[error("cannot start a thread for the network namespace {label}")]
    Thread {
        /// How it was named.
        label: String,
        /// Why.
        source: io::Error,
    },
}

/// An open network namespace; it lives as long as this does.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    inum: u32,
    label: String,
    pid: Option<u32>,
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.inum == other.inum
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, NetnsError> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that a user names: a path (anything with a `/`), the number of a process, or a name.
    pub fn open(target: &str) -> Result<Self, NetnsError> {
        if target.contains('/') {
            return Self::at(Path::new(target));
        }
        if let Ok(pid) = target.parse::<u32>() {
            return Self::of_process(pid);
        }
        if target.is_empty() || target == "." || target == ".." {
            return Err(NetnsError::NoName(target.escape_debug().to_string()));
        }
        let path = BIND_FOLDERS.iter().map(|folder| Path::new(folder).join(target)).find(|path| path.exists());
        Self::at(&path.ok_or_else(|| NetnsError::NoName(target.escape_debug().to_string()))?)
    }

    /// The namespace of a process.
    fn of_process(pid: u32) -> Result<Self, NetnsError> {
        let netns = match Self::at(&PathBuf::from(format!("/proc/{pid}/ns/net"))) {
            Err(NetnsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(NetnsError::NoProcess(pid.to_string()));
            }
            other => other?,
        };
        Ok(Self { pid: Some(pid), ..netns })
    }

    /// The namespace that a file stands for.
    pub fn at(path: &Path) -> Result<Self, NetnsError> {
        let label = path.display().to_string().escape_debug().to_string();
        // A pipe or a device under this name must not hold us up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|source| NetnsError::Open { path: label.clone(), source })?;
        let inum = network_namespace(&file).map_err(|source| NetnsError::Open { path: label.clone(), source })?;
        let inum = inum.ok_or_else(|| NetnsError::NotOne { path: label.clone() })?;
        let opened = Self { file: Arc::new(file), inum, label, pid: None };
        if path.starts_with("/proc") {
            return Ok(opened);
        }
        // A file that it is bound to cannot be unmounted while it is open; the same by /proc is nobody's mount.
        let unbound = opened.run(|| File::open("/proc/thread-self/ns/net"));
        Ok(match unbound {
            Ok(Ok(file)) => Self { file: Arc::new(file), ..opened },
            // Without root it may be looked at, not entered.
            Ok(Err(_)) | Err(_) => opened,
        })
    }

    /// Its inode number, by which the kernel's records name it.
    pub fn inum(&self) -> u32 {
        self.inum
    }

    /// The path that it was opened by, control characters escaped.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A process that was in it when it was found, if it was found by one.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The words before a command that run it here: by a process that is here now, or by the file that this is bound to. `None` where
    /// neither is to be seen, as of another distro's.
    pub fn entrance(&self) -> Option<String> {
        let is_here = |pid: &u32| inum_of(&PathBuf::from(format!("/proc/{pid}"))) == Some(self.inum);
        if let Some(pid) = self.pid.filter(is_here).or_else(|| processes().map(|(pid, _)| pid).find(is_here)) {
            return Some(format!("nsenter -t {pid} -n"));
        }
        let bound = BIND_FOLDERS.iter().flat_map(|folder| entries(Path::new(folder)));
        let bound = bound.filter(|path| Self::at(path).is_ok_and(|there| there == *self));
        bound.map(|path| format!("nsenter --net={}", shell_word(&path.display().to_string()))).next()
    }

    /// The same by what it was named by, which leads there as long as it stands for it.
    pub fn entrance_as_named(&self) -> String {
        match self.pid {
            Some(pid) => format!("nsenter -t {pid} -n"),
            None => format!("nsenter --net={}", shell_word(&self.label)),
        }
    }

    /// Whether a process is in it, or a file bound to it, other than by this having it open.
    pub fn is_shown(&self) -> bool {
        // Where it was found it is mostly still.
        let there = |path: &Path| fs::metadata(path).is_ok_and(|file| file.ino() == u64::from(self.inum));
        there(Path::new(&self.label)) || self.entrance().is_some()
    }

    /// Runs `work` inside of the namespace, on a thread of its own, so that the caller's thread stays where it is; a panic
    /// of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(format!("netns-{}", self.inum)).spawn_scoped(scope, || {
                // Only root may enter, even where the thread is already.
                let here = fs::read_link("/proc/thread-self/ns/net").ok().and_then(|link| inum_of_link(&link));
                if here != Some(self.inum) {
                    setns(self, CloneFlags::CLONE_NEWNET)
                        .map_err(|errno| NetnsError::Enter { label: self.label.clone(), source: errno.into() })?;
                }
                Ok(work())
            });
            let thread = thread.map_err(|source| NetnsError::Thread { label: self.label.clone(), source })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Self::run`], for work that can fail itself.
    ///
    /// # Errors
    ///
    /// What `work` fails with, or that the namespace cannot be entered.
    pub fn try_run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.run(work).map_err(io::Error::other)?
    }

    /// Every network namespace that a process is in or that is bound in the usual folders, by inode number; what vanishes
    /// or may not be looked at meanwhile is left out.
    pub fn visible() -> BTreeMap<u32, Self> {
        let mut found = BTreeMap::new();
        for (pid, entry) in processes() {
            // Reading the link is much cheaper than opening, and most processes share one namespace.
            let Some(inum) = inum_of(&entry) else { continue };
            if !found.contains_key(&inum)
                && let Ok(netns) = Self::of_process(pid)
            {
                found.insert(netns.inum, netns);
            }
        }
        for entry in BIND_FOLDERS.iter().flat_map(|folder| entries(Path::new(folder))) {
            if let Ok(netns) = Self::at(&entry) {
                found.entry(netns.inum).or_insert(netns);
            }
        }
        found
    }
}

/// The number of the network namespace that an open file stands for, if it does. Not by what /proc says that the file is: of one that is
/// bound, that is the path.
fn network_namespace(file: &File) -> io::Result<Option<u32>> {
    // `NS_GET_NSTYPE` of `include/uapi/linux/nsfs.h`.
    nix::ioctl_none!(namespace_type, 0xb7, 3);
    if fstatfs(file)?.filesystem_type() != NSFS_MAGIC {
        return Ok(None);
    }
    // SAFETY: it takes no argument, and means nothing else on this filesystem.
    if unsafe { namespace_type(file.as_raw_fd()) }? != CloneFlags::CLONE_NEWNET.bits() {
        return Ok(None);
    }
    Ok(u32::try_from(file.metadata()?.ino()).ok())
}

/// What a folder holds; nothing when it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// All processes that /proc shows, each with its folder there.
fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    entries(Path::new("/proc")).filter_map(|entry| Some((entry.file_name()?.to_str()?.parse().ok()?, entry)))
}

/// The number of the namespace of a process that has this folder in /proc.
fn inum_of(process: &Path) -> Option<u32> {
    inum_of_link(&fs::read_link(process.join("ns/net")).ok()?)
}

/// The number in `net:[4026531840]`.
fn inum_of_link(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod tests {
    use super::*;

    /// A new network namespace without a name, or `None` with a note when this needs root.
    pub(crate) fn fresh(test: &str) -> Option<Netns> {
        if !nix::unistd::geteuid().is_root() {
            crate::kernel::skip(test, "making a network namespace needs root");
            return None;
        }
        let made = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Netns::current().unwrap()
        });
        Some(made.join().unwrap())
    }

    /// Runs `ip` inside of a namespace.
    pub(crate) fn ip(netns: &Netns, arguments: &str) {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = netns.run(|| std::process::Command::new("ip").args(&arguments).output().unwrap()).unwrap();
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A path by which `ip` can name the namespace while it is open.
    pub(crate) fn fd_path(netns: &Netns) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), netns.file.as_raw_fd())
    }

    #[test]
    fn numbers_are_read_from_links() {
        assert_eq!(inum_of_link(Path::new("net:[4026531840]")), Some(4_026_531_840));
        assert_eq!(inum_of_link(Path::new("mnt:[4026531840]")), None);
        assert_eq!(inum_of_link(Path::new("net:[99999999999]")), None);
    }

    #[test]
    fn what_is_no_namespace_is_told_so() {
        let message = |target: &str| Netns::open(target).unwrap_err().to_string();
        assert!(message("/dev/null").contains("/dev/null is not a network namespace"));
        assert!(message("/proc/self/ns/mnt").contains("is not a network namespace"));
        assert!(message("/nowhere/at/all").contains("cannot open"));
        assert!(message("4294967295").contains("there is no process 4294967295"));
        assert!(message("no\nsuch").contains("named 'no\\nsuch'"));
        assert!(message("..").contains("named '..'"));
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        let Some(netns) = fresh("work_runs_inside_and_the_caller_stays_outside") else { return };
        let before = Netns::current().unwrap();
        assert_ne!(netns, before);
        let inside = netns.run(|| Netns::current().unwrap()).unwrap();
        assert_eq!(inside, netns);
        assert_eq!(Netns::current().unwrap(), before);
        let panicked = std::panic::catch_unwind(|| netns.run(|| std::panic::resume_unwind(Box::new("as wanted"))));
        assert_eq!(*panicked.unwrap_err().downcast_ref::<&str>().unwrap(), "as wanted");
    }

    #[test]
    fn a_namespace_is_entered_by_a_process_or_not_at_all() {
        let own = Netns::of_process(std::process::id()).unwrap();
        assert_eq!(own.entrance(), Some(format!("nsenter -t {} -n", std::process::id())));
        let Some(nobodys) = fresh("a_namespace_is_entered_by_a_process_or_not_at_all") else { return };
        assert_eq!(nobodys.entrance(), None);
        assert_eq!((own.is_shown(), nobodys.is_shown()), (true, false));
        // A process that has left it, or whose number another has now, is no way in.
        assert_eq!(Netns { pid: Some(std::process::id()), ..nobodys }.entrance(), None);
    }

    #[test]
    fn a_bound_namespace_is_one_by_its_path_and_for_whoever_looks_around() {
        let Some(nobodys) = fresh("a_bound_namespace_is_one_by_its_path_and_for_whoever_looks_around") else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bound");
        File::create(&path).unwrap();
        let from = PathBuf::from(fd_path(&nobodys));
        let none = None::<&str>;
        nix::mount::mount(Some(&from), &path, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        let opened = Netns::at(&path);
        let shown = opened.as_ref().map(Netns::is_shown);
        // Whoever looks around may have it open just now, of this process or of another.
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert_eq!(opened.as_ref().unwrap().inum(), nobodys.inum());
        assert!(shown.unwrap());
        assert!(Netns::at(&path).unwrap_err().to_string().contains("is not a network namespace"));
    }

    #[test]
    fn the_own_namespace_is_visible() {
        let own = Netns::of_process(std::process::id()).unwrap();
        assert!(Netns::visible().contains_key(&own.inum()));
    }
}
