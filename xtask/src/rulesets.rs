//! `cargo xtask rulesets`: the property test of rule names over as many random rulesets as one has time for.

use crate::{
    error::Error,
    wide::{self, Wide},
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

/// Runs the property test.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    wide::run(&Wide {
        name: "rulesets",
        reason: "it loads firewalls into network namespaces of its own",
        only: Some("random_rulesets"),
        count: ("WSLTRACE_RULESETS", arguments.count),
        seed: arguments.seed,
    })
}
