//! What becomes of a SYN that rules lead on to another address: to a container, as a rule. The container's own side is asked as this
//! Linux' own is: whether the address is its, who listens there, whether the way there and the answer's way back exist.

use std::net::{IpAddr, SocketAddr};

use super::firewall::stopped;
use super::unserved::{End, Inside};
use super::{Facts, Interface, Severity};
use crate::diagnosis::{join_vlan, kept_apart, rule_name};
use crate::escape::shell_word;
use crate::evidence::{Listener, Rule};
use crate::kernel::addresses::covers;
use crate::kernel::vlans::Apart;
use crate::simulate::{Part, Prediction, Way};
use crate::wsl::{Entry, Gate, takers};

/// What keeps a connection that is led on from being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Fails for certain, or only perhaps.
    pub(super) severity: Severity,
    /// What it is, to stand behind "led to ADDRESS,".
    pub(super) why: String,
    /// What to type.
    pub(super) mend: Vec<String>,
}

impl Trouble {
    fn new(severity: Severity, why: impl Into<String>, mend: impl IntoIterator<Item = String>) -> Self {
        Self { severity, why: why.into(), mend: mend.into_iter().collect() }
    }
}

impl Facts {
    /// It goes to another address than the client asked for: to a container, as a rule.
    pub(super) fn led(&self, entry: &Entry, to: Option<(IpAddr, u16)>, by: Option<&Rule>) -> Gate {
        let by = by.map(|rule| format!(" by {}", rule_name(rule))).unwrap_or_default();
        let Some((address, port)) = to else { return Gate::Led { works: false, why: format!("led elsewhere{by}") } };
        let end = SocketAddr::new(address, port);
        if let Some(setting) = self.not_forwarding(entry, address) {
            return Gate::Shut(format!("led to {end}{by}, and this Linux does not forward it ({setting} is 0)"));
        }
        if let Some(nobody) = self.nobody_inside(end) {
            return Gate::Shut(format!("led to {end}{by}, {nobody}"));
        }
        let trouble = self.trouble(entry, end);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| trouble.severity == Severity::Fails) {
            return Gate::Shut(format!("led to {end}{by}, {}", trouble.why));
        }
        let said = |(packet, part): &(Prediction, Part)| {
            stopped(packet, if *part == Part::Answer { "its answer is " } else { "what the client sends next (its ACK) is " })
        };
        if let Some(gate) = self.led_on(entry, end).iter().find_map(said) {
            return gate;
        }
        let (works, taken) = trouble.map_or_else(|| self.taken(entry, end), |trouble| (false, trouble.why));
        Gate::Led { works, why: format!("led to {end}{by}, {taken}") }
    }

    /// The setting by which this Linux does not forward what is led on to an address, or what is answered from there.
    pub(super) fn not_forwarding(&self, entry: &Entry, to: IpAddr) -> Option<String> {
        if to.is_ipv6() {
            return None;
        }
        let back = self.linux.translated_by_way_of.iter().filter(|(known, _)| *known == to).map(|(_, by)| by);
        let entrances = (!entry.local).then_some(&entry.interface).into_iter().chain(back.filter(|_| !entry.local));
        let shut = entrances.into_iter().find(|interface| self.linux.forwards(interface) == Some(false))?;
        Some(self.linux.not_forwarding(shut))
    }

    /// What the firewalls would do with the packets that follow a SYN which is led on.
    pub(super) fn led_on(&self, entry: &Entry, to: SocketAddr) -> Vec<(Prediction, Part)> {
        let device = Some(entry.interface.clone());
        let bridged = self.is_bridged(entry);
        let next = Way::Confirmation { device: device.clone(), bridged };
        let next = if entry.local { None } else { self.simulated(&next, entry.source, (entry.destination, self.port)) };
        // The answer comes back through the same firewalls.
        let answer = self.simulated(&Way::ForwardedAnswer { device }, entry.source, (to.ip(), to.port()));
        let next = next.map(|packet| (packet, Part::Confirmation));
        next.into_iter().chain(answer.map(|packet| (packet, Part::Answer))).collect()
    }

    /// Whether a socket of a container takes it, and the words for that.
    fn taken(&self, entry: &Entry, to: SocketAddr) -> (bool, String) {
        let Some((inside, end)) = self.inside(to.ip()) else {
            return (false, "an address that no container has which is seen here".to_owned());
        };
        if self.linux.guarded.contains(&inside.netns) {
            return (false, "a container that has firewall rules of its own".to_owned());
        }
        if inside.leads_on {
            return (false, "a container whose own rules may lead it on to another port".to_owned());
        }
        // From 127.0.0.1 it gets an answer only if its source is rewritten as well, and so it is of what comes back out.
        let back_out = self.linux.translated_by_way_of.iter().any(|(known, by)| *known == to.ip() && *by == entry.interface);
        let taken = !takers(self.of_container(inside, to.port()), to.ip(), Some(&end.interface)).is_empty();
        match (taken, entry.local || back_out) {
            (true, false) => (true, "taken by a socket in a container".to_owned()),
            (true, true) => (false, "a container with such a socket, and whether its answer finds back is not known".to_owned()),
            (false, _) => (false, "where a socket is not known".to_owned()),
        }
    }

    /// The one container with this address, and the interface that has it; `None` where none has, or several.
    pub(super) fn inside(&self, address: IpAddr) -> Option<(&Inside, &End)> {
        let mut all = self.linux.inside.iter().filter_map(|inside| Some((inside, inside.end(address)?)));
        let first = all.next();
        first.filter(|_| all.next().is_none())
    }

    fn of_container(&self, inside: &Inside, port: u16) -> impl Iterator<Item = &Listener> {
        let netns = inside.netns;
        self.linux.elsewhere.iter().filter(move |listener| (listener.netns, listener.port) == (netns, port))
    }

    /// What keeps it from being served, as far as this Linux and the container tell.
    pub(super) fn trouble(&self, entry: &Entry, to: SocketAddr) -> Option<Trouble> {
        let Some((inside, end)) = self.inside(to.ip()) else { return self.left_over(to) };
        self.strayed(to.ip())
            .or_else(|| {
                (!end.up).then(|| {
                    Trouble::new(
                        Severity::Fails,
                        format!("whose interface {} is down", end.interface),
                        ["# switch it on in the container, or start the container anew".to_owned()],
                    )
                })
            })
            .or_else(|| self.taken_out(inside, to.ip()))
            .or_else(|| self.in_other_vlan(inside))
            .or_else(|| self.cut_off(inside, end))
            .or_else(|| self.unserved_inside(inside, end, to))
            .or_else(|| self.no_answer(entry, end))
    }

    /// A container whose interface on this side is no port of the bridge to which its packets are led.
    fn taken_out(&self, inside: &Inside, to: IpAddr) -> Option<Trouble> {
        let own = self.linux.interface(&inside.through)?;
        let (_, by) = self.linux.translated_by_way_of.iter().find(|(known, _)| *known == to)?;
        let is_loose = own.master.is_none() && own.kind.as_deref() == Some("veth") && own.name != *by;
        self.linux.interface(by).filter(|by| is_loose && by.kind.as_deref() == Some("bridge"))?;
        let why = format!(
            "a container behind {}, which is no port of the bridge {by} (any longer), to which the routes lead",
            own.name
        );
        let mend = format!("sudo ip link set {} master {}", shell_word(&own.name), shell_word(by));
        Some(Trouble::new(Severity::Fails, why, [mend]))
    }

    /// A container behind a port that the VLANs of its bridge keep from the bridge itself, by which this machine sends.
    fn in_other_vlan(&self, inside: &Inside) -> Option<Trouble> {
        let port = self.linux.interface(&inside.through)?;
        let (Apart { of_bridge, of_port }, bridge) = (port.apart?, port.master.as_ref()?);
        let why =
            format!("a container behind {}, and its bridge {bridge} {}", port.name, kept_apart("that port", of_bridge, of_port));
        let mend = join_vlan(&shell_word(bridge), &shell_word(&port.name), of_bridge, of_port);
        Some(Trouble::new(Severity::Fails, why, mend.into_iter().map(|line| format!("sudo {line}"))))
    }

    /// A container whose interface has nothing at its other end, as when that is switched off here.
    fn cut_off(&self, inside: &Inside, end: &End) -> Option<Trouble> {
        if !end.no_carrier {
            return None;
        }
        let (interface, through) = (&end.interface, &inside.through);
        let is_off = self.linux.interface(through).is_some_and(|own| !own.up);
        let (why, mend) = if is_off {
            let mend = format!("sudo ip link set {} up", shell_word(through));
            (format!("whose interface {interface} has no carrier: {through}, behind which it is, is down"), mend)
        } else {
            let mend = "# see what the interface hangs on, or start the container anew".to_owned();
            (format!("whose interface {interface} has no carrier"), mend)
        };
        Some(Trouble::new(Severity::Fails, why, [mend]))
    }

    /// An address of the containers' network that none of them has, while another one serves the port.
    fn left_over(&self, to: SocketAddr) -> Option<Trouble> {
        let inside = &self.linux.inside;
        if inside.iter().any(|inside| inside.end(to.ip()).is_some()) {
            return None;
        }
        let bridges = self.linux.interfaces.iter().filter(|own| own.kind.as_deref() == Some("bridge"));
        let home = bridges.flat_map(|own| &own.addresses).find(|own| covers(own.address, own.prefix, to.ip()))?;
        let serves = |end: &&End| covers(home.address, home.prefix, end.address);
        let other = inside.iter().filter(|inside| self.of_container(inside, to.port()).next().is_some());
        let other = other.flat_map(|inside| &inside.ends).find(serves)?;
        let why =
            format!("which no container has that is seen here; one with a server on port {} has {}", to.port(), other.address);
        let mend = "# if that rule is left over from a container that is gone, take it out".to_owned();
        Some(Trouble::new(Severity::Warns, why, [mend]))
    }

    /// Routes that lead what is for a container of a bridge to somewhere else, as a VPN's do.
    fn strayed(&self, to: IpAddr) -> Option<Trouble> {
        // What may lead to containers is not taken for an error.
        const INNER: [&str; 6] = ["bridge", "veth", "netkit", "macvlan", "ipvlan", "vxlan"];
        let (_, by) = self.linux.translated_by_way_of.iter().find(|(known, _)| *known == to)?;
        let is_inner = |interface: &Interface| interface.kind.as_deref().is_some_and(|kind| INNER.contains(&kind));
        let own = self.linux.interfaces.iter().filter(|own| own.kind.as_deref() == Some("bridge"));
        let networks = own.flat_map(|own| own.addresses.iter().map(move |address| (own, address)));
        let network = networks.filter(|(_, own)| covers(own.address, own.prefix, to));
        let (home, _) = network.max_by_key(|(_, own)| own.prefix)?;
        // The outer interface may be a veth, as in a lab.
        let is_outer = self.linux.outer.as_ref().is_some_and(|(_, outer)| outer == by);
        if *by == home.name || (self.linux.interface(by).is_none_or(is_inner) && !is_outer) {
            return None;
        }
        let (bridge, device) = (&home.name, shell_word(&home.name));
        if !home.up {
            let why = format!("a container of {bridge}, which is down, so that a route leads it to {by}");
            return Some(Trouble::new(Severity::Fails, why, [format!("sudo ip link set {device} up")]));
        }
        let why = format!(
            "a container of {bridge}, but a route leads its packets to {by}, as a VPN's route that covers its network does"
        );
        let mend = [
            format!("ip route get {to}"),
            format!("sudo ip route add {to} dev {device}"),
            "# that lasts until the next start; for good give the containers' network or the VPN's another range".to_owned(),
        ];
        Some(Trouble::new(Severity::Fails, why, mend))
    }

    /// A container's server that takes connections, and of which nothing comes.
    fn unserved_inside(&self, inside: &Inside, end: &End, to: SocketAddr) -> Option<Trouble> {
        // Rules of its own may lead it to another socket.
        if inside.leads_on {
            return None;
        }
        let takers = takers(self.of_container(inside, to.port()), to.ip(), Some(&end.interface));
        let of = |listener: &&Listener| {
            let resume = |pid| [format!("ps -o pid,stat,args -p {pid}"), format!("sudo kill -CONT {pid}")];
            if let Some(pid) = listener.pid.filter(|_| self.is_stopped(listener)) {
                return Some(("where the container's server is stopped (SIGSTOP, Ctrl-Z)", resume(pid).to_vec()));
            }
            let full = listener.queue > listener.backlog;
            full.then(|| {
                (
                    "where the container's server does not accept: its queue is full",
                    vec!["# look why it hangs, or start it again".to_owned()],
                )
            })
        };
        let found: Vec<_> = takers.iter().filter_map(of).collect();
        let all = found.len() == takers.len();
        let (why, mend) = found.into_iter().next()?;
        Some(Trouble::new(if all { Severity::Fails } else { Severity::Warns }, why, mend))
    }

    /// A container that has no way back to clients of the outer network, or refuses them for it. Where rules rewrite the source
    /// (masquerade), it answers this Linux instead, so that this alone proves nothing.
    fn no_answer(&self, entry: &Entry, end: &End) -> Option<Trouble> {
        let is_outer = self.linux.outer.as_ref().is_some_and(|(_, outer)| *outer == entry.interface);
        if entry.local || !is_outer {
            return None;
        }
        let (client, by) = end.back.iter().find(|(_, by)| by.as_ref() != Some(&end.interface))?;
        let unless = "only what this Linux rewrites the source of (masquerade) is answered";
        let look = "# in the container: ip route show".to_owned();
        Some(match by {
            None => Trouble::new(
                Severity::Warns,
                format!("a container that has no route back to clients such as {client}: {unless}"),
                [look, "# it lacks a default route by this Linux: start the container anew, or add one in it".to_owned()],
            ),
            Some(by) if end.strict => Trouble::new(
                Severity::Warns,
                format!(
                    "a container that would answer clients such as {client} by {by}, and whose rp_filter refuses them: {unless}"
                ),
                [look],
            ),
            Some(by) => Trouble::new(
                Severity::Warns,
                format!("a container that answers clients such as {client} by {by}, and whether they get there is not known"),
                [look],
            ),
        })
    }
}
