//! Who would take a SYN behind the rules that stopped it: a port that is opened for a server which is not there, or which other addresses
//! only can reach, still lets nobody in.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::told::OrTold as _;
use super::watched::{Watched, others};
use super::{Evidence, Listener, Rule};
use crate::journey::Journey;
use crate::kernel::netns::Netns;
use crate::probe::lookup_programs;

/// Where a SYN that was stopped would come behind all that stops it, by the rules and sockets as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The address of the namespace where it was stopped.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Who listens on that port there.
    pub listeners: Vec<Listener>,
    /// The rule or policy that would stop the answer from there.
    pub answer_stopped_by: Option<Rule>,
}

impl Gatherer {
    /// Adds it, where the sockets alone decide who gets a connection.
    pub(super) fn add_arrival(&mut self, journey: &Journey, at: (IpAddr, u16), evidence: &mut Evidence) {
        let inum = journey.last_netns();
        let Some(watched) = self.watched.get_mut(&inum) else { return };
        if watched.lookup_is_programmed() {
            return;
        }
        let Some(found) = watched.listeners(at.1, None).or_told(inum, "list the listeners") else { return };
        let answer_stopped_by = watched.stopper_of_answer(journey, at);
        let listeners = self.all_with_owners(found);
        evidence.arrival = Some(Arrival { address: at.0, port: at.1, listeners, answer_stopped_by });
    }
}

impl Watched {
    /// Whether somebody's program decides which listener gets a connection, or that cannot be told.
    fn lookup_is_programmed(&mut self) -> bool {
        let netns: &Netns = &self.netns;
        let programs = self.lookup_programs.get(|| lookup_programs(netns));
        programs.or_told(self.netns.inum(), "list the programs that look for listeners").is_none_or(|all| !others(all).is_empty())
    }
}
