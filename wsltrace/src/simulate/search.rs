//! The search for a hardware address: the question and its answer, ARP of IPv4 and neighbour discovery of IPv6, on their way out of a device
//! and back in, or the reverse, and through the bridge that the device may be. Whoever finds no hardware address sends no SYN.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::chain::{Exit, Exits, add};
use super::hooks::through;
use super::packet::{Machine, Packet, Part, Standing, Way};
use super::read::Rulesets;
use super::ruleset::Hook;
use super::state::{Here, Layer, State, Tracked};
use super::unknown::{self, Because};
use super::walk::{Ends, concluded, end_of, predict};
use super::{End, Goes, Prediction};
use crate::journey::Family;

/// A search that passes a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Whose hardware address is asked for.
    pub whom: IpAddr,
    /// Who asks, where that is known.
    pub asker: Option<IpAddr>,
    /// The device by which the question leaves or comes in; `None` when it is not known.
    pub device: Option<String>,
    /// Whether that device is a bridge, and its port.
    pub port: Port,
    /// Whether this namespace asks; otherwise it is asked.
    pub own: bool,
}

/// The port of a bridge by which a search passes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Port {
    /// There is no bridge.
    #[default]
    NoBridge,
    /// This one.
    Named(String),
    /// It is not known which.
    Any,
}

/// What the rules would do with the question and its answer, in this order; each is followed as if the other had passed.
pub fn predict_search(rulesets: &Rulesets, search: &Search, machine: &Machine) -> [Prediction; 2] {
    [true, false].map(|question| {
        let leaves = search.own == question;
        let frames = Frames { rulesets, search, machine, question, leaves };
        if search.whom.is_ipv4() {
            return concluded(rulesets, &frames.ends(), |_| {
                let arptables = Because { name: unknown::ARP.to_owned(), place: "arptables-legacy".to_owned() };
                rulesets.arptables.then_some(arptables)
            });
        }
        let bridge = concluded(rulesets, &frames.ends(), |_| None);
        let network = predict(rulesets, &frames.packet(), machine);
        // The first that is certain to stop it, or else what may.
        if matches!(network.end, End::Passes { .. }) || is_stopped(&bridge) && !is_stopped(&network) { bridge } else { network }
    })
}

fn is_stopped(prediction: &Prediction) -> bool {
    matches!(prediction.end, End::Dropped { .. } | End::Rejected { .. })
}

/// One of the two.
struct Frames<'a> {
    rulesets: &'a Rulesets,
    search: &'a Search,
    machine: &'a Machine,
    question: bool,
    leaves: bool,
}

impl Frames<'_> {
    /// The same for the rules of IPv6.
    fn packet(&self) -> Packet {
        let (device, own) = (self.search.device.clone(), self.leaves);
        let way = if self.question { Way::Solicitation { device, own } } else { Way::Advertisement { device, own } };
        Packet { way, source: None, source_port: None, destination: self.search.whom, destination_port: 0, ecn: None }
    }

    /// The hooks, each with its device. Of IPv6 those of the device itself are followed with IP's.
    fn hooks(&self) -> Vec<(Layer, Hook, Option<String>)> {
        let ipv4 = self.search.whom.is_ipv4();
        let device = || self.search.device.clone();
        let port = |layer, hook| match &self.search.port {
            Port::NoBridge => None,
            Port::Named(name) => Some((layer, hook, Some(name.clone()))),
            Port::Any => Some((layer, hook, None)),
        };
        let of_device = |layer, hook| ipv4.then(|| (layer, hook, device()));
        let hooks = if self.leaves {
            vec![
                of_device(Layer::Arp, Hook::Output),
                of_device(Layer::Arp, Hook::Egress),
                port(Layer::Bridge, Hook::Output),
                port(Layer::Bridge, Hook::Postrouting),
                port(Layer::Bridge, Hook::Egress),
            ]
        } else {
            vec![
                port(Layer::Bridge, Hook::Ingress),
                port(Layer::Bridge, Hook::Prerouting),
                port(Layer::Bridge, Hook::Input),
                of_device(Layer::Arp, Hook::Ingress),
                of_device(Layer::Arp, Hook::Input),
            ]
        };
        hooks.into_iter().flatten().collect()
    }

    fn here(&self, layer: Layer, hook: Hook, device: Option<String>) -> Here<'_> {
        let ipv4 = self.search.whom.is_ipv4();
        let part = match (ipv4, self.question) {
            (true, true) => Part::ArpQuestion,
            (true, false) => Part::ArpAnswer,
            (false, true) => Part::Solicitation,
            (false, false) => Part::Advertisement,
        };
        let (input, output) = if self.leaves { (None, device) } else { (device, None) };
        Here {
            hook,
            family: if ipv4 { Family::Ipv4 } else { Family::Ipv6 },
            machine: self.machine,
            input,
            output,
            loopback: false,
            asked: (self.search.whom, 0),
            part,
            standing: Standing::Untracked,
            ecn: None,
            layer,
        }
    }

    fn ends(&self) -> Ends {
        let Search { whom, asker, .. } = *self.search;
        // Questions of IPv6 go to a multicast address, and by which address who asks is not known.
        let ipv4 = whom.is_ipv4();
        let known = |address: Option<IpAddr>| address.filter(|_| ipv4);
        let (source, destination) = if self.question { (asker, Some(whom)) } else { (Some(whom), asker) };
        let start = State {
            source: known(source),
            source_port: None,
            destination: known(destination),
            local: Some(!self.leaves),
            destination_port: None,
            mark: Some(0),
            connection_mark: None,
            tracked: Tracked::Untracked,
            translated_by: None,
            moved: Some(false),
            source_moved: false,
            bound: false,
            handed_to: None,
            because: BTreeSet::new(),
        };
        let (mut on, mut ends) = (vec![start], Ends::new());
        for (layer, hook, device) in self.hooks() {
            let here = self.here(layer, hook, device);
            let mut next: Exits = Vec::new();
            for state in on {
                for (exit, state) in through(&self.rulesets.chains, &here, state) {
                    match exit {
                        Exit::End(fate) => ends.push((Some(end_of(self.rulesets, &fate, hook, &state)), state.because)),
                        Exit::Lost => ends.push((None, state.because)),
                        _ => add(&mut next, Exit::Accept, state),
                    }
                }
            }
            on = next.into_iter().map(|(_, state)| state).collect();
        }
        let goes = if self.leaves { Goes::Out } else { Goes::Local };
        let passes = End::Passes { address: Some(whom), port: None, translated_by: None, goes };
        ends.extend(on.into_iter().map(|state| (Some(passes.clone()), state.because)));
        ends
    }
}
