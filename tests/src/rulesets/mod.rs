//! Random firewalls with exactly one killer, which is known because it was put there.

pub mod each;
mod iptables;
mod nft;
mod play;
mod tracer;

use std::error::Error;

pub use play::{
    connect, each as play_each, greeted, handle_of_killer, lab, load, name_of_killer, nft, seed, seen, seen_from, setting,
};
pub use tracer::Tracer;

/// What may fail for any reason.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// The port that is connected to.
pub const PORT: u16 = 8080;
/// The comment by which the killer is found.
pub const MARK: &str = "the killer";

/// What a ruleset is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// nft.
    Nft,
    /// iptables on top of nftables.
    IptablesNft,
    /// The old iptables.
    IptablesLegacy,
}

impl World {
    /// Its name in reports.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    /// A ruleset; the same for the same seed.
    pub fn random(self, seed: u64) -> Ruleset {
        match self {
            Self::Nft => nft::random(seed),
            Self::IptablesNft | Self::IptablesLegacy => iptables::random(seed),
        }
    }
}

/// A firewall, and what must be said of it.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// Text for `nft -f -` or `iptables-restore`.
    pub text: String,
    /// Where the killer stands: family, table, chain.
    pub place: (&'static str, String, String),
    /// Whether it is the chain's policy and not a rule.
    pub policy: bool,
    /// Whether it rejects.
    pub rejects: bool,
}

impl Ruleset {
    /// The same with its killer taken away, if that is a rule.
    #[must_use]
    pub fn without_killer(&self) -> Self {
        Self { text: self.text.split_inclusive('\n').filter(|line| !line.contains(MARK)).collect(), ..self.clone() }
    }
}
