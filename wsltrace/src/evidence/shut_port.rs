//! The way to a container that is shut on this side: the port of the bridge behind which the container is has been switched off, or does not
//! forward.

use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use super::hardware::BRIDGE_FREES;
use super::{Evidence, way};
use crate::journey::{Journey, Outcome, Stage, symbol};

/// The interface here behind which a packet's destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShutPort {
    /// The bridge that was to send it.
    pub bridge: String,
    /// The interface.
    pub port: String,
    /// What is wrong with it.
    pub why: Shut,
}

/// Why a bridge sends nothing by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shut {
    /// It is switched off.
    SwitchedOff,
    /// It does not forward: somebody has set its state, or the spanning tree has (STP).
    NotForwarding,
}

impl Gatherer {
    /// Why a bridge did not bring a packet to a container that is seen.
    pub(super) fn add_shut_port(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let last = journey.died_at.or_else(|| journey.stages.last().map(|visit| visit.stage));
        let freed = journey.location.as_deref().is_some_and(|place| BRIDGE_FREES.contains(&symbol(place)));
        let no_carrier = evidence.queue.as_ref().is_some_and(|queue| queue.is_bridge && !queue.carrier);
        let died_on = || journey.death.as_ref()?.interface.as_deref();
        let device = match last {
            Some(Stage::Neighbour) => way::waited_for(journey).map(|(_, device)| device),
            Some(Stage::TcEgress) if freed || no_carrier => died_on(),
            _ => None,
        };
        let of_syn = !journey.facts.syn_ack && journey.outcome != Outcome::AnswerDropped;
        let (Some(device), here) = (device.filter(|_| of_syn), journey.last_netns()) else { return };
        let to = journey.last_destination().0;
        let found = self.lend_around(here, |_, around| around.shut_port(device, to)).flatten();
        evidence.shut_port = found.map(|(bridge, port, why)| ShutPort { bridge, port, why });
    }
}
