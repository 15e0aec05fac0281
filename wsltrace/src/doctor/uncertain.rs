//! What may stop a packet, or may not: rules and routes that other machines do not have, programs of others. Where something else
//! stops it either way, that is what is said.

use std::net::IpAddr;

use super::Facts;
use super::firewall::stopped;
use crate::diagnosis::refuser;
use crate::evidence::RefusedClient;
use crate::simulate::{End, Goes, Part};
use crate::wsl::{Entry, Gate, taker};

impl Facts {
    /// What is not known of a SYN's way, where that leaves open whether it works; what decides otherwise.
    pub(super) fn beyond_doubt(&self, entry: &Entry) -> Gate {
        let gate = self.firewall(entry);
        let Some(doubt) = self.doubt(entry) else { return gate };
        let certain = match doubt {
            Doubt::Routing(_) => return self.routed(entry, gate, doubt.told()),
            // It drops, or it does not: it neither finds another socket nor another way.
            Doubt::Drops(_) => self.fails_anyway(entry, &gate),
            Doubt::Socket(_) => false,
        };
        // A program that chooses the socket comes behind the rules.
        let before_socket = || self.predicted(entry, Part::Syn).and_then(|syn| stopped(&syn, ""));
        match before_socket() {
            Some(shut @ Gate::Shut(_)) => shut,
            _ if certain => gate,
            _ => Gate::Unknown(doubt.told()),
        }
    }

    /// Whether a SYN gets where the rules of the firewall lead it, and its answer back, whatever else decides about ways here.
    pub(super) fn is_routed(&self, entry: &Entry) -> bool {
        let (linux, own) = (&self.linux, entry.destination);
        let is_routed = |end: &&End| match end {
            End::Passes { address: None, .. } | End::Passes { goes: Goes::Out, .. } => false,
            End::Passes { address: Some(to), goes: Goes::Forward, .. } => linux.through.contains(&(own, *to)),
            End::Passes { goes: Goes::Local | Goes::Proxy, .. } => linux.is_answered(own),
            _ => true,
        };
        self.predicted(entry, Part::Syn).is_some_and(|syn| syn.ends().is_some_and(|ends| ends.iter().all(is_routed)))
    }

    /// Whether nothing comes of it even where all that is not known lets it pass.
    fn fails_anyway(&self, entry: &Entry, gate: &Gate) -> bool {
        let taken = taker(&self.linux.listeners, entry.destination, &entry.interface).is_some();
        matches!(gate, Gate::Shut(_)) || matches!(gate, Gate::Open) && !taken
    }

    fn doubt(&self, entry: &Entry) -> Option<Doubt> {
        let linux = &self.linux;
        let is_routed = || self.is_routed(entry);
        if let Some(what) = self.own_routing(entry.destination).filter(|_| !entry.local && !is_routed()) {
            return Some(Doubt::Routing(what.clone()));
        }
        let is_outer = linux.outer.as_ref().is_some_and(|(own, _)| *own == entry.destination);
        if let Some((client, by, false)) = linux.refused_client(entry.source).filter(|_| is_outer && !entry.local) {
            let strict = format!("rp_filter of {} is strict, and answers", entry.interface);
            return Some(Doubt::Drops(format!("{strict} to some clients, such as {client}, leave by {by}")));
        }
        if !linux.lookup_programs.is_empty() {
            return Some(Doubt::Socket("a BPF program chooses the socket"));
        }
        if !linux.netfilter_programs.is_empty() {
            return Some(Doubt::Drops("a BPF program at netfilter may stop it".to_owned()));
        }
        let of_cgroup = "a BPF program of the server's control group may refuse it";
        (!linux.cgroups.is_empty()).then(|| Doubt::Drops(of_cgroup.to_owned()))
    }

    /// What rules and routes of its own make of what the firewalls would do.
    fn routed(&self, entry: &Entry, gate: Gate, doubt: String) -> Gate {
        if let Some(refused) = self.refusal_of(entry).filter(|_| matches!(gate, Gate::Open | Gate::Shut(_))) {
            return Gate::Shut(refuser(&refused.by, refused.to(entry)));
        }
        // Elsewhere other rules stand, and other servers.
        let arrives = self.linux.arrives.contains(&entry.destination);
        if arrives && self.fails_anyway(entry, &gate) { gate } else { Gate::Unknown(doubt) }
    }

    /// What refuses the client of a SYN, whoever that is.
    fn refusal_of(&self, entry: &Entry) -> Option<&RefusedClient> {
        let is_asked = [&self.linux.outer, &self.linux.outer6].into_iter().flatten().any(|(own, _)| *own == entry.destination);
        let refuses = |refused: &&RefusedClient| {
            let is_client = entry.source == Some(refused.client) && !refused.by.is_marked();
            refused.client.is_ipv4() == entry.destination.is_ipv4() && (refused.everybody || is_client)
        };
        self.linux.refused_clients.iter().filter(|_| is_asked).find(refuses)
    }

    /// What leads packets to or from an address otherwise than usual: each family has rules and routes of its own.
    pub(super) fn own_routing(&self, destination: IpAddr) -> Option<&String> {
        let linux = &self.linux;
        let of_v4 = linux.outer.as_ref().is_some_and(|(outer, _)| outer.is_ipv4());
        // Where no address of IPv4 is there, the first is of IPv6.
        let own = if destination.is_ipv6() && of_v4 { &linux.own_routing6 } else { &linux.own_routing };
        own.as_ref()
    }
}

/// Something that may stop a packet.
enum Doubt {
    /// The way there or back depends on this.
    Routing(String),
    /// This may drop it, and does nothing else.
    Drops(String),
    /// Another socket than the listeners on the port may get it.
    Socket(&'static str),
}

impl Doubt {
    fn told(&self) -> String {
        match self {
            Self::Routing(what) => format!("its way, or that of the answer, depends on {what}"),
            Self::Drops(what) => what.clone(),
            Self::Socket(what) => (*what).to_owned(),
        }
    }
}

impl RefusedClient {
    /// Where the packet goes that is refused.
    fn to(&self, entry: &Entry) -> IpAddr {
        if self.answer { self.client } else { entry.destination }
    }
}
