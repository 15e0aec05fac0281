//! `cargo xtask install`: the program at its place on this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    build,
    command::{is_root, say},
    error::Error,
    places,
};

const DESTINATION: &str = "/usr/local/bin/wsltrace";

/// Builds for release and moves the program into place by one rename, so that a running `wsltrace` is not disturbed.
pub(crate) fn run() -> Result<(), Error> {
    if !is_root() {
        return Err(Error::NeedsRoot {
            task: "install",
            reason: "it writes /usr/local/bin/wsltrace",
            command: format!(
                "cargo xtask build --release && sudo install -m 755 {} {DESTINATION}",
                places::program(true).display()
            ),
        });
    }
    build::run(true)?;
    let unfinished = PathBuf::from(format!("{DESTINATION}.{}", std::process::id()));
    put(&places::program(true), &unfinished).inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    say(&format!("installed {DESTINATION}"));
    Ok(())
}

fn put(program: &Path, unfinished: &Path) -> Result<(), Error> {
    let file = |action, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { action, path, source }
    };
    fs::copy(program, unfinished).map_err(file("write", unfinished))?;
    fs::rename(unfinished, DESTINATION).map_err(file("rename to /usr/local/bin/wsltrace", unfinished))
}
