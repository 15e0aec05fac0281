//! Whether clients of the same network find this machine at all: before a SYN they ask for its hardware address, and whoever gets no
//! answer sends none.

use super::Facts;
use super::firewall::{Firewalls, stopped};
use crate::simulate::{Part, Prediction, predict_arp};
use crate::wsl::{Entry, Gate, NetworkingMode};

/// The device of mirrored mode and consomme, whose other end is in a table and never asked for.
const TOLD: &str = "loopback0";

/// A packet of the search for a hardware address that may be stopped.
pub(super) struct Searched {
    pub(super) prediction: Prediction,
    pub(super) what: &'static str,
}

impl Facts {
    /// What may keep a client that comes by this way from finding this machine: for certain, where something does, and else what
    /// depends on what is not known.
    pub(super) fn search(&self, entry: &Entry) -> Option<Searched> {
        let Firewalls::Read(rulesets) = &self.firewalls else { return None };
        if entry.local || entry.interface == TOLD {
            return None;
        }
        let packets: Vec<Searched> = if entry.destination.is_ipv4() {
            let what = "what clients ask for the hardware address, or the answer to it (ARP), is ";
            predict_arp(rulesets).into_iter().map(|prediction| Searched { prediction, what }).collect()
        } else {
            let question = (Part::Solicitation, "the client's question for the hardware address is ");
            let answer = (Part::Advertisement, "the answer to the client's question for the hardware address is ");
            let of = |(part, what)| Some(Searched { prediction: self.predicted(entry, part)?, what });
            [question, answer].into_iter().filter_map(of).collect()
        };
        let stops = |searched: &&Searched| matches!(stopped(&searched.prediction, ""), Some(Gate::Shut(_)));
        let at = packets.iter().position(|searched| stops(&searched));
        let at = at.or_else(|| packets.iter().position(|searched| stopped(&searched.prediction, "").is_some()))?;
        packets.into_iter().nth(at)
    }

    /// The same as a gate. In the modes that share Windows' addresses it is not known whether Windows asks.
    pub(super) fn unfindable(&self, entry: &Entry) -> Option<Gate> {
        let searched = self.search(entry)?;
        match stopped(&searched.prediction, searched.what)? {
            Gate::Shut(why) if matches!(self.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme)) => {
                Some(Gate::Unknown(why))
            }
            gate => Some(gate),
        }
    }
}
