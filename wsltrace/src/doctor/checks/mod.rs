//! The checks, in the order in which equally bad findings are told. A check is a function in one of the files here and a row of
//! [`CHECKS`].

mod listener;
mod names;
mod routing;
mod setting;
#[cfg(test)]
mod tests;

use super::{Facts, Finding};

/// One check.
pub struct Check {
    /// Its name in the report.
    pub name: &'static str,
    /// What it finds; nothing where it has nothing to say.
    pub judge: fn(&Facts) -> Vec<Finding>,
}

/// All of them.
pub const CHECKS: &[Check] = &[
    Check { name: "mode", judge: setting::mode },
    Check { name: "listener", judge: listener::listening },
    Check { name: "listener_address", judge: listener::address },
    Check { name: "listener_owner", judge: listener::unseen_owner },
    Check { name: "accept_queue", judge: listener::accept_queue },
    Check { name: "docker", judge: listener::docker },
    Check { name: "network", judge: routing::network },
    Check { name: "loopback0", judge: routing::loopback0 },
    Check { name: "programs", judge: routing::programs },
    Check { name: "conntrack", judge: routing::conntrack },
    Check { name: "localhost", judge: names::localhost },
    Check { name: "dns", judge: names::dns },
    Check { name: "unseen", judge: setting::unseen },
];
