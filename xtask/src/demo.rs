//! `cargo xtask demo`: the main job on real traffic, in network namespaces of its own.

use std::process::Command;

use crate::{build, command, error::Error, places};

/// Builds for release and runs `wsltrace demo`, through sudo when not root.
pub(crate) fn run(arguments: &[String]) -> Result<(), Error> {
    build::run(true)?;
    let mut demo = if command::is_root() {
        Command::new(places::program(true))
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--").arg(places::program(true));
        sudo
    };
    command::run(demo.arg("demo").args(arguments))
}
