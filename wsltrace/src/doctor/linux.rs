//! What Linux says about a port: listeners, interfaces, routes, settings, names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unserved::Inside;
use crate::diagnosis::overlapping;
use crate::evidence::{Back, Cgroup, Listener, RefusedClient};
use crate::kernel::addresses::covers;
use crate::kernel::vlans::Apart;

/// What Linux says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Linux {
    /// The kernel's release.
    pub kernel: String,
    /// Whether it was asked by root; others see less.
    pub root: bool,
    /// The listeners on the port, with their owners where /proc shows them.
    pub listeners: Vec<Listener>,
    /// The listeners on other ports, without their owners: rules may lead connections to them.
    #[serde(skip)]
    pub other_listeners: Vec<Listener>,
    /// All listeners in containers' namespaces.
    pub elsewhere: Vec<Listener>,
    /// Processes of the listeners, on the port and on others, that somebody has stopped.
    #[serde(skip)]
    pub stopped: Vec<u32>,
    /// Addresses that listeners on the port are bound to, and that this Linux does not have.
    #[serde(skip)]
    pub gone: Vec<IpAddr>,
    /// Loopback addresses that this Linux has lost: `127.0.0.1`, `::1`.
    #[serde(skip)]
    pub loopback_gone: Vec<IpAddr>,
    /// Loopback addresses that packets do not get to, though a table has them, each with the interface that they leave by instead.
    #[serde(skip)]
    pub loopback_strayed: Vec<(IpAddr, Option<String>)>,
    /// The interface of the IPv4 default route of the main table, whether it names a next hop or not.
    #[serde(skip)]
    pub default_by: Option<String>,
    /// Where processes of docker-proxy lead the connections that they take.
    #[serde(skip)]
    pub proxied: Vec<(u32, SocketAddr)>,
    /// The networks of containers.
    #[serde(skip)]
    pub inside: Vec<Inside>,
    /// Network namespaces of containers that have rules of their own, which may stop packets.
    pub guarded: Vec<u32>,
    /// Families and names of nftables' tables that only the program may change to which they belong.
    #[serde(skip)]
    pub held: Vec<(String, String)>,
    /// The ports that have a listener.
    pub other_ports: Vec<u16>,
    /// The interfaces of this namespace, by their numbers.
    pub interfaces: Vec<Interface>,
    /// The address by which others reach this Linux, and its interface.
    pub outer: Option<(IpAddr, String)>,
    /// The IPv6 address by which others reach this Linux, and its interface, where the one before is of IPv4.
    pub outer6: Option<(IpAddr, String)>,
    /// The address of a bridge for containers, and its interface.
    pub bridge: Option<(IpAddr, String)>,
    /// The next hop of the IPv4 default route, and its interface.
    pub gateway: Option<(IpAddr, String)>,
    /// Addresses of the outer address' own network (IPv4), where clients may be, each with the interface by which answers to it leave.
    #[serde(skip)]
    pub toward_clients: Vec<(IpAddr, String)>,
    /// In mirrored mode: whether a rule leads to the table by which answers to Windows' localhost find back.
    pub loopback_rules: Option<bool>,
    /// What leads the packets of other machines, or the answers to them, otherwise than by the tables that every machine has: rules of
    /// `ip rule`, routes that refuse.
    pub own_routing: Option<String>,
    /// The same over IPv6, where `outer6` is there.
    pub own_routing6: Option<String>,
    /// Clients of other machines, real or possible, that rules of `ip rule` or routes refuse, each with the first rule or route.
    #[serde(default)]
    pub refused_clients: Vec<RefusedClient>,
    /// Those of the two addresses whose packets get to them by the first rule, whatever others there are.
    #[serde(skip)]
    pub arrives: Vec<IpAddr>,
    /// Of those of the two addresses whose packets may be led otherwise than usual: whom answers reach by the address' own interface.
    #[serde(skip)]
    pub back: Vec<(IpAddr, Back)>,
    /// Those of the two addresses, and where rules lead what comes to them: whatever other rules and routes there are, the way there and
    /// back is there for every client of the address' network.
    #[serde(skip)]
    pub through: Vec<(IpAddr, IpAddr)>,
    /// Of the ports that have a listener, for IPv4 and IPv6: whether a rule (TPROXY) can hand connections to it, where that is known.
    /// `None` where the listeners are not.
    #[serde(skip)]
    pub proxies: Option<[BTreeMap<u16, Option<bool>>; 2]>,
    /// The interfaces that lead to where DNAT rules send packets.
    pub translated_by_way_of: Vec<(IpAddr, String)>,
    /// Other ports from which DNAT rules lead connections on to this one, as a container's port is published.
    pub published_as: Vec<u16>,
    /// Settings by their names.
    pub settings: BTreeMap<String, String>,
    /// What limits the table of connection tracking is set in the machine's first network namespace only, and this is another.
    #[serde(skip)]
    pub tracked_by_first: bool,
    /// The interfaces that have a hardware address, and do not answer who asks for it (`ip link set dev NAME arp off`).
    #[serde(skip)]
    pub silent: Vec<String>,
    /// BPF programs that choose the socket of a connection (`sk_lookup`).
    pub lookup_programs: Vec<String>,
    /// The control groups of the listeners on the port whose BPF programs decide about packets.
    pub cgroups: Vec<Cgroup>,
    /// BPF programs that are attached to netfilter, in whatever network namespace.
    pub netfilter_programs: Vec<String>,
    /// What the kernel said to a server that would listen on the port, where nobody does: null when it may.
    pub refused: Option<String>,
    /// How names are found.
    pub names: Names,
    /// Managers of the firewall.
    pub managers: Managers,
    /// What could not be looked at, and why.
    pub unseen: Vec<Unseen>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, and no two make one")]
pub struct Interface {
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its kind, such as `bridge` or `veth`, as the kernel names it.
    #[serde(skip)]
    pub kind: Option<String>,
    /// The bridge or bond that it is a port of.
    #[serde(skip)]
    pub master: Option<String>,
    /// It is a port of a bridge whose VLANs keep it from the bridge itself.
    #[serde(skip)]
    pub apart: Option<Apart>,
    /// Of a `WireGuard` tunnel: how many packets it has refused, mostly because the peer that sent them may not use their source.
    #[serde(skip)]
    pub disallowed: u64,
    /// It is switched on.
    pub up: bool,
    /// It is, and nothing is at its other end.
    #[serde(skip)]
    pub no_carrier: bool,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Whether an XDP program takes its packets first.
    pub xdp: bool,
    /// Names of the BPF programs at tc that see its packets as they come in.
    pub tc: Vec<String>,
    /// The same for packets that go out.
    pub tc_out: Vec<String>,
    /// Whether filters of tc may see its packets (a `clsact` or `ingress` queueing discipline is there), or its queue shapes or loses
    /// them.
    pub filters: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The bits of it that its network has.
    pub prefix: u8,
}

/// How this Linux finds names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// What `localhost` is, in order; `None` when it could not be asked.
    pub localhost: Option<Vec<IpAddr>>,
    /// The lines of /etc/hosts that name `localhost`.
    pub hosts: Vec<String>,
    /// The line of /etc/nsswitch.conf for hosts.
    pub nsswitch: Option<String>,
    /// The name servers of /etc/resolv.conf.
    pub servers: Vec<IpAddr>,
    /// Where /etc/resolv.conf leads, when it is a link.
    pub resolv_conf: Option<String>,
}

/// Programs that manage the firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Managers {
    /// ufw is enabled.
    pub ufw: bool,
    /// firewalld runs: the zone of the outer interface, as it says.
    pub firewalld: Option<String>,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl Interface {
    /// Whether anything but netfilter may stop its packets.
    pub fn is_filtered(&self) -> bool {
        self.xdp || self.filters || !self.tc.is_empty() || !self.tc_out.is_empty()
    }
}

impl Linux {
    /// A setting, trimmed.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The same as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.setting(name)?.parse().ok()
    }

    /// Whether IPv4 forwards what comes by an interface: its own setting decides, which `ip_forward` sets for all when it is written.
    pub fn forwards(&self, interface: &str) -> Option<bool> {
        let own = self.setting(&forwarding(interface)).or_else(|| self.setting("net.ipv4.ip_forward"));
        own.map(|value| value != "0")
    }

    /// The setting that keeps IPv4 from forwarding what comes by an interface: the one of all interfaces, when that is off too.
    pub fn not_forwarding(&self, interface: &str) -> String {
        if self.setting("net.ipv4.ip_forward") == Some("0") { "net.ipv4.ip_forward".to_owned() } else { forwarding(interface) }
    }

    /// Whether the table of connection tracking takes no new connection.
    pub fn is_conntrack_full(&self) -> bool {
        let number = |name: &str| self.number(&format!("net.netfilter.nf_conntrack_{name}"));
        matches!((number("count"), number("max")), (Some(count), Some(most)) if most > 0 && count >= most)
    }

    /// Whether `rp_filter` of an interface refuses what comes by another than its answer would leave by.
    pub fn is_strict(&self, interface: &str) -> bool {
        let of = |of: &str| self.number(&format!("net.ipv4.conf.{of}.rp_filter")).unwrap_or_default();
        of("all").max(of(interface)) == 1
    }

    /// A client's address of the outer network that `rp_filter` refuses: see [`client_elsewhere`](Self::client_elsewhere).
    pub fn refused_client(&self, source: Option<IpAddr>) -> Option<(IpAddr, &str, bool)> {
        self.client_elsewhere(source).filter(|_| self.outer.as_ref().is_some_and(|(_, interface)| self.is_strict(interface)))
    }

    /// A client's address of the outer network to which answers leave by another interface, that interface, and whether that is so of
    /// all that were looked at; of this client alone, where it is known who comes and one of them.
    pub fn client_elsewhere(&self, source: Option<IpAddr>) -> Option<(IpAddr, &str, bool)> {
        let (own, outer) = self.outer.as_ref()?;
        // Rules may lead answers rightly where the main table does not.
        if self.is_answered(*own) {
            return None;
        }
        if let Some((client, by)) = self.toward_clients.iter().find(|(client, _)| Some(*client) == source) {
            return (by != outer).then_some((*client, by, true));
        }
        let (client, by) = self.toward_clients.iter().find(|(_, by)| by != outer)?;
        Some((*client, by, self.toward_clients.iter().all(|(_, by)| by != outer)))
    }

    /// Whether what comes to an address gets to it, and answers to every client of its network leave by its interface, whatever rules and
    /// routes there are.
    pub fn is_answered(&self, own: IpAddr) -> bool {
        let reached = self.back.iter().any(|(of, back)| *of == own && *back != Back::Unclear);
        reached && self.arrives.contains(&own)
    }

    /// How it is that what is for a client goes to this interface, where its network has the client's address.
    pub fn overlap(&self, client: IpAddr, by: &str) -> Option<String> {
        let net = |name: &str| {
            let interface = self.interface(name)?;
            let own = interface.addresses.iter().find(|own| covers(own.address, own.prefix, client))?;
            Some((interface.name.as_str(), (own.address, own.prefix)))
        };
        Some(overlapping(net(by)?, self.outer.as_ref().and_then(|(_, outer)| net(outer))))
    }

    /// The interface of a name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// Every address of this Linux.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|interface| &interface.addresses).map(|address| address.address)
    }
}

/// The setting of an interface by which IPv4 forwards what comes by it; sysctl reads a dot in a name as a slash and the reverse.
pub(super) fn forwarding(interface: &str) -> String {
    format!("net.ipv4.conf.{}.forwarding", interface.replace('.', "/"))
}
