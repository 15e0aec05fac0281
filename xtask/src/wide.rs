//! A test of the lab over as many cases as one has time for, on what was built for release.

use crate::{
    build,
    command::{self, is_root, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// Which test, and how it is told what to try.
pub(crate) struct Wide<'a> {
    /// The subcommand and the test binary.
    pub(crate) name: &'static str,
    /// Why it needs root.
    pub(crate) reason: &'static str,
    /// Those of its tests that are meant; all without one.
    pub(crate) only: Option<&'a str>,
    /// The variable that says how many cases, and that number.
    pub(crate) count: (&'a str, u64),
    /// Which cases; without it the test's own choice.
    pub(crate) seed: Option<u64>,
}

/// Builds for release and runs the test on what was built.
pub(crate) fn run(wide: &Wide<'_>) -> Result<(), Error> {
    if !is_root() {
        let command = format!("sudo -E env \"PATH=$PATH\" cargo xtask {}", wide.name);
        return Err(Error::NeedsRoot { task: wide.name, reason: wide.reason, command });
    }
    setup::ensure(&[Part::Build, Part::Test])?;
    build::run(true)?;
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["test", "--package", "wsltrace-tests", "--test", wide.name, "--target-dir"]);
    cargo.arg(places::user_target()).args(["--", "--nocapture"]).args(wide.only);
    let (variable, count) = wide.count;
    cargo.env("WSLTRACE_BIN", places::program(true)).env(variable, count.to_string());
    if let Some(seed) = wide.seed {
        cargo.env("WSLTRACE_SEED", seed.to_string());
    }
    command::run(&mut cargo)
}
