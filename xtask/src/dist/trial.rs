//! Installs the package into an empty root of its own, runs what it brought, and removes it again: the machine's own packages
//! stay as they are.

use std::{fs, path::Path, process::Command};

use super::{PROGRAM, answer, file};
use crate::{
    command::{self, clean, say},
    error::Error,
    places,
};

/// Tries the package; `files` are the paths that it must bring and take away.
pub(super) fn run(package: &Path, files: &[String]) -> Result<(), Error> {
    let root = places::dist().join("trial");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(file("empty", &root))?;
    }
    for folder in ["info", "updates", "triggers"] {
        let folder = root.join("var/lib/dpkg").join(folder);
        fs::create_dir_all(&folder).map_err(file("make", &folder))?;
    }
    let status = root.join("var/lib/dpkg/status");
    fs::write(&status, []).map_err(file("write", &status))?;

    // Nothing is installed there, so what the package depends on is missing; its program runs with the machine's libraries.
    command::run(dpkg(&root).args(["--force-depends", "--install"]).arg(package))?;
    let absent: Vec<&String> = files.iter().filter(|path| !root.join(path).is_file()).collect();
    if !absent.is_empty() {
        return Err(Error::Package(format!("it was installed, yet {absent:?} is not there")));
    }
    let said = answer(Command::new(root.join(PROGRAM)).arg("--version"))?;
    if said.trim() != concat!("wsltrace ", env!("CARGO_PKG_VERSION")) {
        return Err(Error::Package(format!("the installed program says {said:?} of its version")));
    }
    command::run(dpkg(&root).args(["--purge", "wsltrace"]))?;
    let left: Vec<&String> = files.iter().filter(|path| root.join(path).exists()).collect();
    if !left.is_empty() {
        return Err(Error::Package(format!("it was removed, yet {left:?} is still there")));
    }
    fs::remove_dir_all(&root).map_err(file("remove", &root))?;
    say("dist: installed, run and removed in a root of its own");
    Ok(())
}

fn dpkg(root: &Path) -> Command {
    let mut dpkg = clean("dpkg");
    let mut option = std::ffi::OsString::from("--root=");
    option.push(root);
    dpkg.arg(option).arg("--log=/dev/null");
    dpkg
}
