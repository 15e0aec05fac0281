//! The lab: private network namespaces with one known fault each. `wsltrace demo`, `wsltrace selftest` and the end-to-end
//! tests share it.
//!
//! ```text
//! client (think: Windows)            wsl                                     container (on demand)
//!   eth0 172.28.16.1/20  ──veth──  eth0 172.28.16.2/20
//!        fd00:28:16::1/64               fd00:28:16::2/64
//!                                  docker0 172.17.0.1/16 ─bridge─ veth0 ── eth0 172.17.0.2/16
//!                                                                        backend (on demand)
//!                                                                          cni0 10.244.0.1/24 ─ pod 10.244.0.2 (on demand)
//!   loopback0 127.0.0.1 ──veth──  loopback0 (on demand, as in mirrored mode)
//!                                  eth1 10.88.0.1/24 ────────veth──────── eth0 10.88.0.2/24
//! ```
//!
//! Nothing of it has a name outside: the namespaces are anonymous and end with this process, however it ends. What is true
//! about a scenario comes from how it was broken, from the client's own errno and from the kernel's own counters, never
//! from what the tracer says.

mod cgroup;
mod check;
mod client;
mod comparison;
mod crowd;
mod error;
mod foreign;
mod held;
mod listener;
mod mend;
mod mirrored;
mod namespace;
mod network;
mod nfqueue;
mod option;
mod pair;
mod path;
mod raw;
mod reader;
mod report;
mod run;
mod scenario;
mod sides;
mod tool;
mod tracer;
mod tunnel;
mod turn;
mod withheld;

pub use check::{Truth, check};
pub use client::{Attempt, ClientResult, Manner, Seen};
pub use comparison::{WAYS, compare};
pub use error::LabError;
pub use listener::{Binding, Listening};
pub use mirrored::mirror;
pub use namespace::Namespace;
pub use pair::{Pair, PairReport, chosen, pairs};
pub use path::Step;
pub use report::{Part, demo, list, selftest};
pub use run::{Ending, ScenarioReport, prove, run};
pub use scenario::{Expect, Scenario, Settle, all, find};
pub use sides::{Lab, Side};
pub use tracer::{Said, Tracer};

/// The port that every scenario is about.
pub const PORT: u16 = 8080;

/// Whether a test needs a root that it does not have; says so in the form that counts as skipped.
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "the test runner reads it")]
pub(crate) fn cannot_run(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIP: {test}: network namespaces need root");
    }
    !root
}
