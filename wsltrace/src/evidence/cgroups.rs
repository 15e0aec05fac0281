//! The BPF programs of a socket's control group, which decide about every packet of the socket: systemd attaches them for
//! `IPAddressDeny=`, container runtimes for their own ends.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::probe::cgroup_programs;

/// So many directories are looked through for one control group; a machine with all its services has a few hundred.
const MOST_DIRECTORIES: usize = 20_000;

/// Which of a socket's packets are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that it gets.
    Ingress,
    /// Those that it sends.
    Egress,
}

/// A control group whose programs decide about the packets of its sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cgroup {
    /// Its directory in the file system.
    pub directory: String,
    /// The names of the programs, those of the groups above it included; never empty.
    pub programs: Vec<String>,
}

/// The control group of this number (`INET_DIAG_CGROUP_ID` of a socket), when it has such programs for this direction. `None`
/// also where the group has no directory here: it was removed, or belongs to another container.
pub fn deciding(id: u64, direction: Direction) -> io::Result<Option<Cgroup>> {
    let Some(directory) = find(id)? else { return Ok(None) };
    let programs = cgroup_programs(File::open(&directory)?, direction == Direction::Ingress)?;
    let directory = directory.to_string_lossy().into_owned();
    Ok((!programs.is_empty()).then_some(Cgroup { directory, programs }))
}

/// The directory of a control group: its number is the directory's inode.
fn find(id: u64) -> io::Result<Option<PathBuf>> {
    let Some(root) = root()? else { return Ok(None) };
    let mut to_look_at = VecDeque::from([root]);
    for _ in 0..MOST_DIRECTORIES {
        let Some(directory) = to_look_at.pop_front() else { return Ok(None) };
        match fs::metadata(&directory) {
            Ok(metadata) if metadata.ino() == id => return Ok(Some(directory)),
            Ok(_) => to_look_at.extend(below(&directory)?),
            // It went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("more than {MOST_DIRECTORIES} control groups")))
}

fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Where the second version of control groups is mounted, if it is.
pub(crate) fn root() -> io::Result<Option<PathBuf>> {
    let mounts = procfs::mounts().map_err(io::Error::other)?;
    Ok(mounts.into_iter().find(|mount| mount.fs_vfstype == "cgroup2").map(|mount| mount.fs_file.into()))
}
