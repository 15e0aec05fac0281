//! `cargo xtask pairs`: the lab broken twice, over as many pairs of faults as one has time for.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use crate::{
    error::Error,
    wide::{self, Wide},
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

/// Runs the test of pairs.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    wide::run(&Wide {
        name: "pairs",
        reason: "it breaks network namespaces of its own",
        only: None,
        count: ("WSLTRACE_PAIRS", arguments.count),
        // The standard library's only chance; the test prints what came of it.
        seed: Some(arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())),
    })
}
