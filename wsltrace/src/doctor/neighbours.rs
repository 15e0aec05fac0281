//! Whether clients of the same network find this machine at all: before a SYN they ask for its hardware address, and whoever gets no
//! answer sends none.

use super::Facts;
use super::firewall::{Firewalls, stopped};
use crate::escape::{escape, shell_word};
use crate::evidence::ignoring;
use crate::evidence::sysctls::arp_ignore;
use crate::simulate::{Part, Port, Prediction, Search, predict_search};
use crate::wsl::{Entry, Gate, NetworkingMode};

/// The device of mirrored mode and consomme, whose other end is in a table and never asked for.
const TOLD: &str = "loopback0";

/// A packet of the search for a hardware address that may be stopped.
pub(super) struct Searched {
    pub(super) prediction: Prediction,
    pub(super) what: &'static str,
}

/// Why an interface does not answer who asks for the hardware address, whatever the rules say.
pub(super) struct Silence {
    pub(super) why: String,
    /// Commands that have it answer again.
    pub(super) mend: Vec<String>,
}

impl Facts {
    /// Whether the way's interface is set not to answer.
    pub(super) fn silence(&self, entry: &Entry) -> Option<Silence> {
        if entry.local || entry.interface == TOLD || !entry.destination.is_ipv4() {
            return None;
        }
        let interface = self.linux.interface(&entry.interface)?;
        let name = escape(&interface.name);
        if self.linux.silent.contains(&interface.name) {
            let mend = vec![format!("sudo ip link set dev {} arp on", shell_word(&interface.name))];
            return Some(Silence {
                why: format!("{name} is set to answer nobody who asks for its hardware address (NOARP)"),
                mend,
            });
        }
        let has = interface.addresses.iter().any(|own| own.address == entry.destination);
        let settings = ["all", &interface.name].map(arp_ignore);
        let set = settings.into_iter().filter_map(|setting| Some((setting.clone(), self.linux.setting(&setting)?.to_owned())));
        let set = ignoring(&set.collect::<Vec<_>>(), &interface.name, has);
        let (first, value) = set.first()?;
        let why =
            format!("{name} does not answer who asks for the hardware address of {} ({first} is {value})", entry.destination);
        Some(Silence { why, mend: set.iter().map(|(setting, _)| format!("sudo sysctl -w {setting}=0")).collect() })
    }

    /// What may keep a client that comes by this way from finding this machine: for certain, where something does, and else what
    /// depends on what is not known.
    pub(super) fn search(&self, entry: &Entry) -> Option<Searched> {
        let Firewalls::Read(rulesets) = &self.firewalls else { return None };
        if entry.local || entry.interface == TOLD {
            return None;
        }
        let packets: Vec<Searched> = if entry.destination.is_ipv4() {
            let what = "what clients ask for the hardware address, or the answer to it (ARP), is ";
            let searched = |prediction| Searched { prediction, what };
            let search = Search {
                whom: entry.destination,
                asker: entry.source,
                device: Some(entry.interface.clone()),
                port: if self.is_bridged(entry) { Port::Any } else { Port::NoBridge },
                own: false,
            };
            predict_search(rulesets, &search, &self.machine(entry.destination)).into_iter().map(searched).collect()
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
        let silence = self.silence(entry).map(|silence| Gate::Shut(silence.why));
        let by_rules = || self.search(entry).and_then(|searched| stopped(&searched.prediction, searched.what));
        match silence.or_else(by_rules)? {
            Gate::Shut(why) if matches!(self.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme)) => {
                Some(Gate::Unknown(why))
            }
            gate => Some(gate),
        }
    }
}
