//! `cargo xtask rulesets`: the property test of rule names over as many random rulesets as one has time for.

use crate::{
    build,
    command::{self, is_root, own_cargo},
    error::Error,
    places,
    setup::{self, Part},
};

/// How many to try, and from where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rulesets: half of them of nft, a quarter of each iptables
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// The first seed, to repeat a run [default: by chance]
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds for release and runs the test on what was built.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::NeedsRoot {
            task: "rulesets",
            reason: "it loads firewalls into network namespaces of its own",
            command: "sudo -E env \"PATH=$PATH\" cargo xtask rulesets".to_owned(),
        });
    }
    setup::ensure(&[Part::Build, Part::Test])?;
    build::run(true)?;
    let mut cargo = own_cargo();
    cargo.current_dir(places::root()).args(["test", "--package", "wsltrace-tests", "--test", "rulesets", "--target-dir"]);
    cargo.arg(places::user_target()).args(["--", "--nocapture", "random_rulesets"]);
    cargo.env("WSLTRACE_BIN", places::program(true)).env("WSLTRACE_RULESETS", arguments.count.to_string());
    if let Some(seed) = arguments.seed {
        cargo.env("WSLTRACE_SEED", seed.to_string());
    }
    command::run(&mut cargo)
}
