//! The file that tells other programs that every probe is on.

use std::io;
use std::path::Path;

use crate::causes::reason;
use crate::command::Failure;

/// The file that says that every probe is on. Whether its place can be written to is looked at before anything is attached;
/// it is made in one go at the end, so that a killed run leaves none.
pub(super) struct ReadyFile<'a> {
    path: &'a Path,
    folder: &'a Path,
}

impl<'a> ReadyFile<'a> {
    pub(super) fn prepare(path: &'a Path) -> Result<Self, Failure> {
        use nix::unistd::{AccessFlags, access};
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ready = Self { path, folder };
        if path.is_dir() || path.file_name().is_none() {
            return Err(ready.failure(&io::Error::from(io::ErrorKind::IsADirectory)));
        }
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| ready.failure(&errno.into()))?;
        Ok(ready)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure {
            message: format!("cannot make the ready file {}: {}", self.path.display().to_string().escape_debug(), reason(error)),
            hint: Some("name a file in a folder that exists and can be written to".to_owned()),
            status: 1,
        }
    }

    pub(super) fn publish(&self) -> Result<(), Failure> {
        let made = tempfile::NamedTempFile::new_in(self.folder).and_then(|file| Ok(file.persist(self.path)?));
        made.map(drop).map_err(|error| self.failure(&error))
    }
}
