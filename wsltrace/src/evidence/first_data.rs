//! What stands where the first data of a client died, beside a firewall's rules.

use std::io;

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Connection, Gatherer, TcProgram};
use crate::journey::{DataDrop, Journey, Stage};
use crate::kernel::links;

/// What may have stopped it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacle {
    /// Others' BPF programs at tc of the device that it came in by.
    pub programs: Vec<TcProgram>,
    /// The device by which it was to be sent on, and the largest packet that this one takes, bytes.
    pub narrow: Option<(String, u32)>,
    /// The same of the device by which a container's packets go to the client, where they do not get through.
    pub narrow_back: Option<(String, u32)>,
}

impl Gatherer {
    /// What stands there; nothing where the first data did not die, or a firewall dropped it. And what stands in the way of a container's
    /// packets that are sent again.
    pub fn obstacle(&mut self, journey: &Journey, connection: &Connection) -> Obstacle {
        let Some(watched) = self.watched.get_mut(&journey.netns) else { return Obstacle::default() };
        let inum = journey.netns;
        match journey.facts.data_dropped {
            // Behind a container's own devices there may be programs, too.
            Some(DataDrop::TcIngress) if journey.server_netns() == Some(inum) => {
                let programs = journey.interface.map(|device| watched.others_at_tc(device, true));
                let programs = programs.and_then(|found| found.or_told(inum, "list the programs at tc"));
                Obstacle { programs: programs.unwrap_or_default(), ..Obstacle::default() }
            }
            Some(DataDrop::TooLarge) => {
                Obstacle { narrow: watched.way_on(journey).or_told(inum, "look at the devices").flatten(), ..Obstacle::default() }
            }
            None if connection.retransmissions > 0 && journey.server_netns() != Some(inum) => {
                let back = journey.interface.map(|device| watched.with_mtu(&device));
                let back = back.and_then(|found| found.or_told(inum, "look at the devices")).flatten();
                Obstacle { narrow_back: back, ..Obstacle::default() }
            }
            _ => Obstacle::default(),
        }
    }
}

impl Watched {
    /// The device by which a journey's SYN was sent on, with its MTU.
    fn way_on(&self, journey: &Journey) -> io::Result<Option<(String, u32)>> {
        let mut syn = journey.stages.iter().take(journey.answer.unwrap_or(usize::MAX));
        // Which of several routers it was is not known.
        if syn.clone().any(|visit| visit.stage == Stage::Forward && visit.netns != journey.netns) {
            return Ok(None);
        }
        let sent_on = syn.rfind(|visit| visit.stage == Stage::Postrouting && visit.netns == journey.netns);
        sent_on.and_then(|visit| visit.interface).map_or(Ok(None), |device| self.with_mtu(&device))
    }

    fn with_mtu(&self, device: &str) -> io::Result<Option<(String, u32)>> {
        let link = links::list_links(&self.netns)?.into_iter().find(|link| link.name == device);
        Ok(link.map(|link| (link.name, link.mtu)))
    }
}
