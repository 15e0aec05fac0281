//! `cargo xtask pairs`: the lab broken twice, over as many pairs of faults as one has time for.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use crate::{
    build,
    command::{self, is_root, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// How many to try, and which.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many pairs
    #[arg(default_value_t = 300)]
    count: u64,
    /// Which ones: the same for the same seed [default: by chance]
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds for release and runs the test on what was built.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::NeedsRoot {
            task: "pairs",
            reason: "it breaks network namespaces of its own",
            command: "sudo -E env \"PATH=$PATH\" cargo xtask pairs".to_owned(),
        });
    }
    setup::ensure(&[Part::Build, Part::Test])?;
    build::run(true)?;
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["test", "--package", "wsltrace-tests", "--test", "pairs", "--target-dir"]);
    cargo.arg(places::user_target()).args(["--", "--nocapture"]);
    // The standard library's only chance; the test prints what came of it.
    let seed = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    cargo.env("WSLTRACE_BIN", places::program(true)).env("WSLTRACE_PAIRS", arguments.count.to_string());
    cargo.env("WSLTRACE_SEED", seed.to_string());
    command::run(&mut cargo)
}
