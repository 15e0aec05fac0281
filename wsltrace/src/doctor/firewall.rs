//! What the firewalls of this Linux would do with a SYN, by simulation: as a gate of the table of ways.

use std::net::{IpAddr, SocketAddr};

use super::Facts;
use crate::diagnosis::rule_name;
use crate::evidence::{Listener, Rule};
use crate::simulate::{Behind, End, Goes, Machine, Packet, Part, Prediction, Rulesets, Way, further, predict};
use crate::wsl::{Entry, Gate, taker, takers};

/// The ends of the ports that clients of Windows as well as of Linux take by themselves.
const CLIENT_PORTS: [u16; 2] = [49_152, 60_999];
/// The setting of the ports that clients in this Linux take by themselves.
pub(super) const LOCAL_PORTS: &str = "net.ipv4.ip_local_port_range";

/// The rulesets, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub enum Firewalls {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// They could not be read; why.
    Unread(String),
    /// Read.
    Read(Box<Rulesets>),
}

impl Facts {
    /// What the firewalls would do with a packet of the handshake; `None` when they were not read.
    pub(super) fn predicted(&self, entry: &Entry, part: Part) -> Option<Prediction> {
        let device = Some(entry.interface.clone());
        let bridged = self.is_bridged(entry);
        let way = match (entry.local, part) {
            (true, Part::Syn) => Way::Loopback,
            (true, Part::Answer) => Way::LoopbackAnswer,
            (true, Part::Confirmation) => Way::LoopbackConfirmation,
            (true, Part::Data) => Way::LoopbackData,
            (false, Part::Data) => Way::Data { device },
            (false, Part::Syn) => Way::Outside { device, bridged },
            (false, Part::Answer) => Way::Answer { device },
            (false, Part::Confirmation) => Way::Confirmation { device, bridged },
            (_, Part::Solicitation) => Way::Solicitation { device, own: false },
            (_, Part::Advertisement) => Way::Advertisement { device, own: true },
            // No rule of IP sees them: they are followed as a search.
            (_, Part::ArpQuestion | Part::ArpAnswer) => return None,
        };
        self.simulated(&way, entry.source, (entry.destination, self.port))
    }

    /// The same of a SYN, as if nobody knew of any proxy whether it is there.
    pub(super) fn predicted_whatever_proxies(&self, entry: &Entry) -> Option<Prediction> {
        let Firewalls::Read(rulesets) = &self.firewalls else { return None };
        let device = Some(entry.interface.clone());
        let way = if entry.local { Way::Loopback } else { Way::Outside { device, bridged: self.is_bridged(entry) } };
        let (source, destination) = (entry.source, entry.destination);
        let packet = Packet { way, source, source_port: None, destination, destination_port: self.port, ecn: None };
        let machine = Machine { proxies: None, ..self.machine(destination) };
        Some(predict(rulesets, &packet, &machine))
    }

    /// What stands behind the rule that stops a SYN: the rules which would stop it next, and where it comes to.
    pub(super) fn behind(&self, entry: &Entry, rule: &Rule) -> Behind {
        let Firewalls::Read(rulesets) = &self.firewalls else { return Behind::default() };
        let way = if entry.local {
            Way::Loopback
        } else {
            Way::Outside { device: Some(entry.interface.clone()), bridged: self.is_bridged(entry) }
        };
        let (source, destination) = (entry.source, entry.destination);
        let packet = Packet { way, source, source_port: None, destination, destination_port: self.port, ecn: None };
        further(rulesets, &packet, &self.machine(entry.destination), Some(rule))
    }

    /// Whether rules may give a SYN another destination.
    pub(super) fn is_led(&self, entry: &Entry) -> bool {
        let asked = (Some(entry.destination), Some(self.port));
        self.predicted(entry, Part::Syn).is_some_and(|syn| match syn.end {
            End::Passes { address, port, .. } => (address, port) != asked,
            End::Maybe { possible, .. } => {
                possible.iter().any(|end| matches!(end, End::Passes { address, port, .. } if (*address, *port) != asked))
            }
            _ => false,
        })
    }

    pub(super) fn is_bridged(&self, entry: &Entry) -> bool {
        let of_containers = self.linux.bridge.as_ref().is_some_and(|(_, name)| *name == entry.interface);
        of_containers
            || self.linux.interface(&entry.interface).is_some_and(|interface| interface.kind.as_deref() == Some("bridge"))
    }

    /// The addresses of this Linux, and the proxies for packets to one.
    pub(super) fn machine(&self, destination: IpAddr) -> Machine {
        let own = |interface: &super::Interface| {
            interface.addresses.iter().map(|address| (interface.name.clone(), address.address)).collect::<Vec<_>>()
        };
        Machine {
            addresses: self.linux.interfaces.iter().flat_map(own).collect(),
            ways: self.linux.translated_by_way_of.iter().cloned().collect(),
            proxies: self.proxies_of(destination),
        }
    }

    /// What the firewalls would do with a packet of a connection from `source` to `server`.
    pub(super) fn simulated(&self, way: &Way, source: Option<IpAddr>, server: (IpAddr, u16)) -> Option<Prediction> {
        let Firewalls::Read(rulesets) = &self.firewalls else { return None };
        let (destination, destination_port) = server;
        let machine = self.machine(destination);
        let (local, answer) = match way {
            Way::LoopbackAnswer => (true, true),
            Way::Answer { .. } | Way::ForwardedAnswer { .. } => (false, true),
            Way::Loopback | Way::LoopbackConfirmation | Way::LoopbackData => (true, false),
            Way::Outside { .. }
            | Way::Confirmation { .. }
            | Way::Data { .. }
            | Way::Solicitation { .. }
            | Way::Advertisement { .. } => (false, false),
        };
        let of_client = |source_port| {
            let packet = Packet { way: way.clone(), source, source_port, destination, destination_port, ecn: None };
            let Prediction { end, whole } = predict(rulesets, &packet, &machine);
            // An answer goes to the client's port, by which two of the same fate would differ.
            Prediction { end: if answer { without_port(end) } else { end }, whole }
        };
        let ports = local.then(|| self.linux.setting(LOCAL_PORTS).and_then(range_of)).flatten().unwrap_or(CLIENT_PORTS);
        let [first, last] = ports.map(|port| of_client(Some(port)));
        Some(if first == last { first } else { of_client(None) })
    }

    /// Where rules lead a SYN that stays in this Linux: another address or port of it than was asked for.
    pub(super) fn redirected(&self, entry: &Entry) -> Option<(SocketAddr, Option<Rule>)> {
        match self.predicted(entry, Part::Syn)?.end {
            End::Passes { address: Some(to), port: Some(port), translated_by, goes: Goes::Local }
                if (to, port) != (entry.destination, self.port) =>
            {
                Some((SocketAddr::new(to, port), translated_by))
            }
            _ => None,
        }
    }

    /// The socket of this Linux that takes what rules lead to another port of it.
    pub(super) fn taker_at(&self, to: SocketAddr, interface: &str) -> Option<&Listener> {
        let all = self.linux.listeners.iter().chain(&self.linux.other_listeners);
        takers(all.filter(|listener| listener.port == to.port()), to.ip(), Some(interface)).into_iter().next()
    }

    /// The addresses of the sockets on a port to which rules lead, where none of them takes what comes there.
    pub(super) fn bound_beside(&self, to: SocketAddr) -> Vec<IpAddr> {
        let all = self.linux.listeners.iter().chain(&self.linux.other_listeners);
        let mut bound: Vec<IpAddr> = all.filter(|listener| listener.port == to.port()).map(|listener| listener.address).collect();
        bound.sort_unstable();
        bound.dedup();
        bound
    }

    /// How it is that no socket of this Linux takes what rules lead there.
    pub(super) fn nobody_at(&self, to: SocketAddr) -> String {
        let bound: Vec<String> = self.bound_beside(to).iter().map(IpAddr::to_string).collect();
        if bound.is_empty() {
            "nothing listens".to_owned()
        } else {
            format!("the server listens only on {}", bound.join(" and "))
        }
    }

    /// What the firewalls would do with the answer of the socket that a SYN was led to.
    pub(super) fn answered_from(&self, entry: &Entry, to: SocketAddr) -> Option<Prediction> {
        let way = if entry.local { Way::LoopbackAnswer } else { Way::Answer { device: Some(entry.interface.clone()) } };
        self.simulated(&way, entry.source, (to.ip(), to.port()))
    }

    /// Whether the kernel refuses a packet from outside because rules lead it to 127.0.0.0/8; `None` where that is not known.
    pub(super) fn is_martian(&self, entry: &Entry, to: IpAddr) -> Option<bool> {
        if entry.local || !to.is_loopback() {
            return Some(false);
        }
        if to.is_ipv6() {
            return None;
        }
        let setting = |of: &str| self.linux.setting(&format!("net.ipv4.conf.{of}.route_localnet"));
        match (setting("all"), setting(&entry.interface)) {
            (Some("1"), _) | (_, Some("1")) => Some(false),
            (Some("0"), Some("0")) => Some(true),
            _ => None,
        }
    }

    /// It goes to another address or port of this Linux than the client asked for.
    fn led_here(&self, entry: &Entry, to: SocketAddr, by: Option<&Rule>) -> Gate {
        let by = by.map(|rule| format!(" by {}", rule_name(rule))).unwrap_or_default();
        match self.is_martian(entry, to.ip()) {
            Some(false) => {}
            Some(true) => {
                return Gate::Shut(format!("led to {to}{by}, which nothing from outside may reach (route_localnet is 0)"));
            }
            None => return Gate::Unknown(format!("led to {to}{by}, and whether that may be reached from outside is not known")),
        }
        let blind = self.linux.unseen.iter().any(|unseen| unseen.what == super::gather::LISTENERS);
        let Some(listener) = self.taker_at(to, &entry.interface) else {
            return if blind {
                Gate::Unknown(format!("led to {to}{by}, and the listening sockets could not be seen"))
            } else {
                Gate::Shut(format!("led to {to}{by}, where {}", self.nobody_at(to)))
            };
        };
        if listener.queue > listener.backlog {
            return Gate::Shut(format!("led to {to}{by}, where the server does not accept: its queue is full"));
        }
        if let Some(why) = self.unserved(listener) {
            return Gate::Shut(format!("led to {to}{by}, where {why}"));
        }
        let answer = self.answered_from(entry, to).and_then(|packet| stopped(&packet, "its answer is "));
        // Over lo the last hooks see the address and port that the client asked for again.
        let seen = entry.local.then(|| self.predicted(entry, Part::Answer)).flatten();
        let seen = seen.and_then(|packet| stopped(&packet, "its answer is "));
        let next = || self.predicted(entry, Part::Confirmation);
        let next = || next().and_then(|packet| stopped(&packet, "what the client sends next (its ACK) is "));
        let stop = match (answer, seen) {
            (Some(Gate::Shut(why)), Some(Gate::Shut(_))) => Some(Gate::Shut(why)),
            (Some(Gate::Shut(why)), None) if !entry.local => Some(Gate::Shut(why)),
            (None, None) => next(),
            (Some(Gate::Shut(why) | Gate::Unknown(why)), _) | (_, Some(Gate::Shut(why) | Gate::Unknown(why))) => {
                Some(Gate::Unknown(why))
            }
            (answer, seen) => answer.or(seen),
        };
        stop.unwrap_or_else(|| Gate::Led {
            works: true,
            why: format!("led to {to}{by}, taken by the socket on {}", listener.address),
        })
    }

    /// The same as a gate: whether the client finds this machine, the way there, and the answer's way back.
    pub(super) fn firewall(&self, entry: &Entry) -> Gate {
        let taken = taker(&self.linux.listeners, entry.destination, &entry.interface).is_some();
        match self.handshake(entry) {
            // Where nobody takes it, that is what matters.
            Gate::Open if !taken => Gate::Open,
            open @ (Gate::Open | Gate::Led { .. }) => {
                self.unfindable(entry).or_else(|| self.answered_elsewhere(entry)).unwrap_or(open)
            }
            gate => gate,
        }
    }

    /// Answers that leave by another interface than the SYN came by: whether the client is reached by that, nobody here knows.
    fn answered_elsewhere(&self, entry: &Entry) -> Option<Gate> {
        let is_outer = self.linux.outer.as_ref().is_some_and(|(own, _)| *own == entry.destination);
        let (client, by, _) = self.linux.client_elsewhere(entry.source).filter(|_| is_outer && !entry.local)?;
        let overlap = self.linux.overlap(client, by).map(|overlap| format!(" ({overlap})")).unwrap_or_default();
        Some(Gate::Unknown(format!(
            "answers to clients such as {client} leave by {by}{overlap}, and whether they get there is not known"
        )))
    }

    /// What the firewalls do with the packets of the handshake.
    fn handshake(&self, entry: &Entry) -> Gate {
        let Some(prediction) = self.predicted(entry, Part::Syn) else {
            return self.unread().map_or(Gate::Open, |why| self.without_rules(&why));
        };
        match &prediction.end {
            End::Maybe { .. } if self.unread().is_some() => self.without_rules(&self.unread().unwrap_or_default()),
            End::Maybe { .. } => self.of_several(entry, &prediction),
            end => self.of_end(entry, end),
        }
    }

    /// What becomes of a SYN and of what follows it, where the rules for the SYN are known to end so.
    pub(super) fn of_end(&self, entry: &Entry, end: &End) -> Gate {
        match end {
            End::Passes { port: Some(port), translated_by, goes: Goes::Proxy, .. } => {
                self.taken_by_proxy(entry, *port, translated_by.as_ref())
            }
            End::Passes { address, port, translated_by, goes } => {
                let there = (*address, *port) == (Some(entry.destination), Some(self.port));
                if *goes == Goes::Local && there {
                    // Without a socket it fails whatever becomes of the reset, and there is no confirmation.
                    if taker(&self.linux.listeners, entry.destination, &entry.interface).is_none() {
                        return Gate::Open;
                    }
                    let stop = |part, what| self.predicted(entry, part).and_then(|packet| stopped(&packet, what));
                    stop(Part::Answer, "its answer is ")
                        .or_else(|| stop(Part::Confirmation, "what the client sends next (its ACK) is "))
                        .unwrap_or(Gate::Open)
                } else if let (Goes::Local, Some((address, port))) = (goes, address.zip(*port)) {
                    self.led_here(entry, SocketAddr::new(address, port), translated_by.as_ref())
                } else {
                    self.led(entry, address.zip(*port), translated_by.as_ref())
                }
            }
            _ => stopped_at(end, "").unwrap_or(Gate::Open),
        }
    }

    /// What can be said without having read the rules: where nobody listens, and no bridge is there that a rule could lead to, they do
    /// not matter.
    fn without_rules(&self, why: &str) -> Gate {
        if self.linux.listeners.is_empty() && self.linux.bridge.is_none() {
            return Gate::Open;
        }
        Gate::Unknown(format!("the firewall rules could not be read: {why}"))
    }

    /// Why rules could not be read, where that is so.
    pub(super) fn unread(&self) -> Option<String> {
        match &self.firewalls {
            Firewalls::Unread(why) => Some(why.clone()),
            Firewalls::Read(rulesets) => {
                let all: Vec<String> = rulesets.unread.iter().map(|unread| format!("{}: {}", unread.what, unread.why)).collect();
                (!all.is_empty()).then(|| all.join(", "))
            }
            Firewalls::NotAsked => None,
        }
    }
}

/// The same end of a packet whose port is any client's.
fn without_port(end: End) -> End {
    match end {
        End::Passes { address, translated_by, goes, .. } => End::Passes { address, port: None, translated_by, goes },
        End::Dropped { rule, forward, .. } => End::Dropped { rule, address: None, port: None, forward },
        End::Rejected { rule, forward, .. } => End::Rejected { rule, address: None, port: None, forward },
        End::Maybe { possible, because } => {
            let mut ends: Vec<End> = Vec::new();
            for end in possible.into_iter().map(without_port) {
                if !ends.contains(&end) {
                    ends.push(end);
                }
            }
            End::Maybe { possible: ends, because }
        }
        End::Queued { .. } => end,
    }
}

/// The ends of a range of ports as the kernel writes it: two numbers.
fn range_of(text: &str) -> Option<[u16; 2]> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some([first, last]),
        _ => None,
    }
}

/// What stops a packet, if anything does; `what` stands before the verb.
pub(super) fn stopped(prediction: &Prediction, what: &str) -> Option<Gate> {
    let stops: Vec<String> = prediction.stops().into_iter().filter_map(in_words).collect();
    if !stops.is_empty() {
        return Some(Gate::Shut(format!("{what}{}", stops.join(", or "))));
    }
    // Where chance leads it, say, it passes as well.
    if prediction.ends().is_some_and(|ends| ends.iter().all(|end| matches!(end, End::Passes { .. }))) {
        return None;
    }
    Some(match &prediction.end {
        End::Maybe { .. } => Gate::Unknown(format!("the firewall decides, and it depends on {}", prediction.maybe().join(", "))),
        end => stopped_at(end, what)?,
    })
}

/// The same of one end.
fn stopped_at(end: &End, what: &str) -> Option<Gate> {
    match end {
        End::Queued { rule } => Some(Gate::Unknown(format!("{what}handed to a program by {}", described(rule)))),
        end => in_words(end).map(|stop| Gate::Shut(format!("{what}{stop}"))),
    }
}

/// A stop in words: what is done, and by which rule.
pub(super) fn in_words(end: &End) -> Option<String> {
    Some(match end {
        End::Dropped { rule, .. } => format!("dropped by {}", described(rule)),
        End::Rejected { rule, .. } => format!("rejected by {}", described(rule)),
        _ => return None,
    })
}

/// A rule with what it says.
pub(super) fn described(rule: &Rule) -> String {
    match &rule.text {
        Some(text) if rule.handle.is_some() || rule.number.is_some() => format!("{}: {text}", rule_name(rule)),
        _ => rule_name(rule),
    }
}
