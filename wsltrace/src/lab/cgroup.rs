//! A control group of the lab's own, under the one that this process is in: sockets made inside belong to it for good.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::LabError;
use crate::evidence::cgroups;

static MADE: AtomicU32 = AtomicU32::new(0);

/// A control group; removed when dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: PathBuf,
    home: PathBuf,
}

impl Cgroup {
    /// Makes one with nothing in it.
    pub(super) fn new() -> Result<Self, LabError> {
        let home = home()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = home.join(format!("wsltrace-lab-{}-{number}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| match error.kind() {
            // As in a container.
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                LabError::Unsupported("control groups cannot be made here".into())
            }
            _ => LabError::io(format!("make the control group {}", directory.display()))(error),
        })?;
        Ok(Self { directory, home })
    }

    /// Does something inside: this process is moved there and back, because only whole processes can be. Every socket that it makes
    /// meanwhile belongs to the group for good, so no other lab may stand.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
        enter(&self.directory)?;
        let done = work();
        enter(&self.home)?;
        done
    }

    /// Its directory, to attach programs to.
    pub(super) fn open(&self) -> Result<File, LabError> {
        File::open(&self.directory).map_err(LabError::io(format!("open {}", self.directory.display())))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Fails only while a process is inside, and `run` leaves none there.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Where this process is in the second version's tree.
fn home() -> Result<PathBuf, LabError> {
    let root = cgroups::root().map_err(LabError::io("look for the control groups"))?;
    let root = root.ok_or_else(|| LabError::Unsupported("control groups of version 2 are not mounted here".into()))?;
    let own = fs::read_to_string("/proc/self/cgroup").map_err(LabError::io("read /proc/self/cgroup"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.ok_or_else(|| LabError::Unsupported("this process is in no control group of version 2".into()))?;
    Ok(root.join(own))
}

fn enter(directory: &Path) -> Result<(), LabError> {
    let procs = directory.join("cgroup.procs");
    let moved: io::Result<()> = fs::write(&procs, "0");
    moved.map_err(LabError::io(format!("move this process by {}", procs.display())))
}
