//! `cargo xtask bench`: prints the figures that docs/performance.md quotes, from this machine.

use crate::{
    build,
    command::{self, is_root, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// The part that needs other load generators.
const LOADS: &str = "loads";

/// Builds for release and runs the bench on what was built; `parts` names what to measure, all when empty.
pub(crate) fn run(parts: &[String]) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::NeedsRoot {
            task: "bench",
            reason: "it makes network namespaces and traces in them",
            command: "sudo -E env \"PATH=$PATH\" cargo xtask bench".to_owned(),
        });
    }
    let mut needed = vec![Part::Build, Part::Test];
    if parts.is_empty() || parts.iter().any(|part| part == LOADS) {
        needed.push(Part::Loads);
    }
    setup::ensure(&needed)?;
    build::run(true)?;
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["bench", "--package", "wsltrace-tests", "--bench", "figures", "--target-dir"]);
    cargo.arg(places::user_target()).arg("--").args(parts).env("WSLTRACE_BIN", places::program(true));
    command::run(&mut cargo)
}
