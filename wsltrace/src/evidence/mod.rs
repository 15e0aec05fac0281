//! What user space can find out about a failed journey: rules and sockets. Every field is what was observed; nothing here
//! judges.

mod around;
mod arrival;
mod aside;
mod back;
pub mod backend;
mod behind;
mod behind_device;
mod beyond;
mod bridge_port;
pub mod cgroups;
mod clients;
mod confirmation;
mod connection;
pub mod counters;
mod device;
mod down;
mod first_data;
mod followed;
mod further;
mod gather;
mod hardware;
mod held_back;
mod hindered;
mod ipsec;
mod isolated;
mod killer;
pub mod lead;
mod misaddressed;
mod neighbour;
mod place;
mod policy;
mod proxy;
mod published;
mod readings;
mod refused;
mod resident;
mod router;
pub mod routes;
mod rule;
pub(crate) mod rules;
mod shared_wire;
mod shut_port;
mod simulated;
pub mod sockets;
mod strays;
pub mod sysctls;
mod told;
mod transparent;
mod tun;
mod tunnel;
mod units;
mod unlistened;
mod unmasked;
mod unnamed;
mod watched;
mod way;
mod whereabouts;
mod wrapped;

pub use arrival::Arrival;
pub use aside::Redirect;
pub use back::{Back, is_way_through, way_back};
pub use behind::{namespaces_behind, namespaces_next_to};
pub use beyond::XdpBeyond;
pub use bridge_port::BridgePort;
pub use cgroups::Cgroup;
pub use clients::{RefusedClient, Server, refused_clients};
pub use connection::Connection;
pub use device::{Queue, TcProgram};
pub use down::{Down, is_freed_by_vlan};
pub use first_data::Obstacle;
pub use followed::Dropped;
pub use gather::Gatherer;
pub use hardware::Unclaimed;
pub use held_back::{FilteredEgress, HeldBack};
pub use hindered::{FileLimit, Hindered, Hindrance, Work};
pub use ipsec::{IpsecPolicy, protects_what_comes};
pub use isolated::{BRIDGE_FREES, Isolated};
pub use lead::Lead;
pub use misaddressed::{Misaddress, Misaddressed};
pub(crate) use neighbour::ignoring;
pub use neighbour::{Deaf, Deafness, Unheard};
pub use policy::{LeadingRule, Refusal, RefusingRule, own_routing};
pub use proxy::{Proxied, proxied};
pub use published::{Published, is_held_by_docker};
pub use readings::Silence;
pub use resident::Resident;
pub use routes::{Hop, Refusing};
pub(crate) use rule::words;
pub use rule::{Backend, NamedBy, Owner, Rule};
pub use rules::{Scope, TableHolder, dnat_targets};
pub use shared_wire::SharedWire;
pub use shut_port::{Shut, ShutPort};
pub use sockets::{Listener, Sockets};
pub use transparent::{PassedProxy, Unled};
pub use tun::Handed;
pub use tunnel::Tunnel;
pub use units::SocketUnit;
pub use unlistened::Unlistened;
pub use way::{Astray, Mirror};
pub use whereabouts::Whereabouts;
pub use wrapped::Wrapped;

use std::net::IpAddr;

use crate::journey::Stage;
pub use crate::kernel::addresses::{OwnAddress, Unready};
pub use crate::simulate::Further;

use serde::{Deserialize, Serialize};

/// All that was found out about one journey.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct Evidence {
    /// The rule that killed the packet, when an event of this very packet named it.
    pub rule: Option<Rule>,
    /// The program that the rule's table belongs to, where no other may change it.
    pub table_holder: Option<TableHolder>,
    /// The rules that would stop the same packet one after the other once that rule, or routing, lets it through, by the rules as they are
    /// now.
    pub further: Vec<Further>,
    /// Where the same packet would come in this namespace behind all of those.
    pub arrival: Option<Arrival>,
    /// The destination port that the packet had where the rule met it, where that was found by following the rules.
    pub port_there: Option<u16>,
    /// What the rule is known by.
    pub named_by: NamedBy,
    /// The rules that may have dropped what the client sent to confirm an answer, where that depends on what is not known (a socket, a time,
    /// earlier packets) and nothing else there can have done it; the only one is [`Self::rule`] as well.
    pub suspects: Vec<Rule>,
    /// The stage of the chain by which the packet came to that rule.
    pub stage: Option<Stage>,
    /// The rule that gave the packet another address.
    pub translator: Option<Rule>,
    /// The rule that rejected the SYN by a reset which died on its way out, and where the SYN was to go.
    #[serde(default)]
    pub rejecter: Option<Further>,
    /// The rule that exempted the packet from connection tracking (`notrack`).
    pub exempted_by: Option<Rule>,
    /// The rule of WSL's own that gave the packet WSL's mark, whatever mark it had.
    pub marked_by_wsl: Option<Rule>,
    /// Firewall back ends with rules in the namespace and at the stage of the death; enough to say what kind of firewall it was.
    pub backend: Option<Backend>,
    /// Sockets; `None` when they were not asked for or could not be read.
    pub sockets: Option<Sockets>,
    /// The unit of systemd whose socket it is, where systemd itself listens and nothing takes the connection.
    pub socket_unit: Option<SocketUnit>,
    /// Where those of them that are docker-proxy lead connections, where the connection was reset.
    pub proxied: Vec<Proxied>,
    /// The processes of listeners that somebody has stopped (`SIGSTOP`, Ctrl-Z).
    pub stopped: Vec<u32>,
    /// What keeps the server from accepting in whose queue alone connections wait, where one of them was not accepted or found the queue
    /// full.
    pub hindered: Option<Hindered>,
    /// Listeners on the same port in other namespaces that are joined to the one where the packet ended.
    pub elsewhere: Vec<Listener>,
    /// The address at which the first of them is to be asked, where its namespace stands on a wire of this one's (macvlan, ipvlan).
    pub elsewhere_at: Option<IpAddr>,
    /// The words before a command that run it in the namespace where the packet ended, such as `nsenter -t 12 -n`, where that is
    /// another than the one that it came into.
    pub entrance: Option<String>,
    /// Names of others' BPF programs that decide which listener gets a connection (`sk_lookup`), in the namespace of a refusal.
    pub lookup_programs: Vec<String>,
    /// Names of others' BPF programs at netfilter, in any namespace, where a hook refused the packet and no chain is known that did.
    pub netfilter_programs: Vec<String>,
    /// Names of BPF programs that choose among sockets that share a port (`sk_reuseport`), of any namespace, where a connection was refused
    /// though a listener is there.
    pub choosing_programs: Vec<String>,
    /// The VRF by which a packet came that was refused though a listener is there, or in which an answer is routed.
    pub vrf: Option<String>,
    /// The control group of the listening socket, when the packet died of a decision about its socket and programs of that group make
    /// such.
    pub cgroup: Option<Cgroup>,
    /// Others' BPF programs at tc of the device where the packet died, in its direction.
    pub tc_programs: Vec<TcProgram>,
    /// The only rule of nftables that may have sent an answer to another device than it was routed to.
    pub forwarder: Option<Rule>,
    /// The filters of tc that may have sent an answer to another device than it was routed to.
    pub redirects: Vec<Redirect>,
    /// What the kernel counted while a listener was silent; `None` when it was not, or without a reading from before the SYN.
    pub silence: Option<Silence>,
    /// Whether there is a route back to the client; `None` when it was not asked for or is not known.
    pub route_back: Option<bool>,
    /// The rule or policy by which this machine's questions for a hardware address die, or the answers to them, where a packet waited for
    /// a neighbour; by the rules as they are now.
    pub unheard: Option<Unheard>,
    /// The namespace that has the address for whose hardware address a packet waited, where that one did not answer.
    pub deaf: Option<Deaf>,
    /// The only container on a bridge where nobody has the address for whose hardware address a packet waited.
    pub resident: Option<Resident>,
    /// The interface on which a packet waited for the address of a container that stands on it (macvlan, ipvlan).
    pub shared_wire: Option<SharedWire>,
    /// The XDP program behind the device by which a SYN left that was not seen again.
    pub xdp_beyond: Option<XdpBeyond>,
    /// This machine's address in a network of its own making, from which a packet was sent on with its own source and not answered.
    pub unmasked: Option<OwnAddress>,
    /// The hardware address that a packet was sent to, where it was sent on or answered, and nobody is known to have it.
    pub unclaimed: Option<Unclaimed>,
    /// Where the container is that has a packet's destination, where the packet went elsewhere.
    pub whereabouts: Option<Whereabouts>,
    /// The interface behind which a packet's destination is, by which its bridge sends nothing.
    pub shut_port: Option<ShutPort>,
    /// What an answer goes on in that was not seen to leave.
    pub wrapped: Option<Wrapped>,
    /// The queueing discipline that holds packets back at the device by which a packet or an answer was seen to leave in vain.
    pub held_back: Option<HeldBack>,
    /// Filters of traffic control at the device by which it was last seen to leave, behind the last place that is seen.
    pub filtered_egress: Option<FilteredEgress>,
    /// What was wrong with the hardware address to which a packet or an answer was sent that nobody took.
    pub misaddressed: Option<Misaddressed>,
    /// The ports of a bridge that sends nothing from one to the other, where it did not send the packet.
    pub isolated: Option<Isolated>,
    /// The gateway to which the routes lead the packet that waited for a neighbour; `None` also where its destination is the neighbour.
    pub gateway: Option<IpAddr>,
    /// The way to the client by the interface that its SYN came in by, where the kernel would take another; `None` also where
    /// there is none.
    pub hop_back: Option<Hop>,
    /// The interface by which an answer without a mark goes to the client, by the routes as they are now.
    pub way_back: Option<String>,
    /// The rule of `ip rule` that leads an answer there, where it is none of those that every machine has.
    pub leading_rule: Option<LeadingRule>,
    /// The address of the namespace before this one, or of the only neighbour, by which answers could leave, where there is no route back or
    /// one by another interface.
    pub router: Option<IpAddr>,
    /// A route that refuses packets to the destination, where routing ended the journey; or to the client, where a listener made no
    /// answer, the reverse path filter asked, or routing ended the answer.
    pub refusing_route: Option<Refusing>,
    /// A rule of `ip rule` that refuses such packets.
    pub refusing_rule: Option<RefusingRule>,
    /// Whether a rule of `ip rule` asks for a mark, where an answer left by another interface than its SYN came by.
    pub rules_by_mark: bool,
    /// What is wrong with WSL's routing for Windows' localhost in mirrored mode, where an answer to it went astray.
    pub mirror: Option<Mirror>,
    /// The interface by which a packet that OUTPUT's DNAT rewrote would leave.
    pub way_on: Option<String>,
    /// Where a packet was led that is not for this machine, or that a rule gave another destination, and that came to nothing.
    pub lead: Option<Lead>,
    /// How many packets of the namespace `IPsec` policies have refused so far, where a listener made no answer.
    pub ipsec_refused: u64,
    /// The `IPsec` policy that refuses the packet where it was refused, or the answer where a listener made none or it was discarded.
    pub ipsec_policy: Option<IpsecPolicy>,
    /// The device by which the packet was handed to a program, and not seen again.
    pub handed: Option<Handed>,
    /// The tunnel by which an answer left that was sent again in vain.
    pub tunnel: Option<Tunnel>,
    /// The port of a bridge that has the address which the answer was to be sent from, where that waited there for a neighbour.
    pub bridge_port: Option<BridgePort>,
    /// Whether the program that manages the rule is not installed here.
    pub manager_missing: bool,
    /// The queue of the device where the packet was dropped from it.
    pub queue: Option<Queue>,
    /// The rule that gave the packet to a transparent proxy, where no rule of `ip rule` leads marked packets to this machine.
    pub unled: Option<Unled>,
    /// The rule that would have handed the packet to a transparent proxy, had that one a transparent socket.
    pub passed_proxy: Option<PassedProxy>,
    /// Another namespace that has the address of the container in which nothing took the packet.
    pub twin: Option<u32>,
    /// The interface behind a bridge without a carrier that has the packet's destination, and is switched off.
    pub down: Option<Down>,
    /// The interface of the first namespace that is switched off, and in whose network the address is to which a packet was sent on by the
    /// interface where it came from; or the VLAN's interface, switched off, that the packet
    /// was for where it came in; or the VRF, switched off, in which the answer is routed.
    pub down_here: Option<String>,
    /// The addresses of the namespace where the packet ended, where they bear on that; empty also when they were not asked for.
    pub addresses: Vec<OwnAddress>,
    /// What keeps a packet for one of those addresses from being taken for this machine's.
    pub astray: Option<Astray>,
    /// Addresses that listeners are bound to and no interface has, and that a route of the type `local` makes this machine's all the same.
    pub local_by_route: Vec<IpAddr>,
    /// Whether the kernel has something of an older connection between the ends of a SYN for which TCP looked for no listener, or a
    /// half-open one was reset meanwhile; `None` when it was not asked.
    pub older_connection: Option<bool>,
    /// The rule of this machine that gave an answer which nobody confirmed another address or port.
    pub answer_rewriter: Option<Rule>,
    /// The rule of this machine that wrote another source into the SYN, outside of NAT, where nobody confirmed the answer.
    pub source_rewriter: Option<Rule>,
    /// How many half-open connections of the namespace the other side has reset since a reading from before a SYN that was answered and not
    /// confirmed (`TcpExt.EmbryonicRsts`).
    pub resets_of_half_open: u64,
    /// The rule that gave a packet another source, where connection tracking would not have the connection that it made of it.
    pub source_translator: Option<Rule>,
    /// The largest packet that the device takes by which an IPv6 packet came that IPv6 would not have.
    pub mtu: Option<u32>,
    /// Where a rule leads connections for this port on that did not take this one, where nothing has the packet's port.
    pub led_on_to: Option<IpAddr>,
    /// The one address that such a rule is for.
    pub led_on_by: Option<IpAddr>,
    /// The interface whose packets such a rule leaves alone.
    pub led_on_except: Option<String>,
    /// The container for which Docker publishes the port, where the packet came to nobody on it.
    pub published: Option<Published>,
    /// Who has the packet's port without listening on it, where nothing does.
    pub unlistened: Option<Unlistened>,
    /// Listeners on other ports, the nearest first, where nothing has the packet's.
    pub nearest: Vec<Listener>,
    /// By how much the kernel's count of ICMP errors that it did not send rose in the namespace of the death since a reading from before the SYN; `None` also where the kernel does not count them.
    pub icmp_suppressed: Option<u64>,
    /// How many journeys of this namespace were dropped by netfilter in that time.
    pub dropped_by_netfilter: u64,
    /// Sysctls that bear on the death, with their values, such as `("net.ipv4.conf.eth0.rp_filter", "1")`.
    pub sysctls: Vec<(String, String)>,
    /// What limits the table of connection tracking is set in the machine's first network namespace only, and the packet died in another.
    pub tracked_by_first: bool,
}

impl Evidence {
    /// Whether an address is one of the namespace's where the packet ended, as far as its addresses were asked for.
    pub fn has_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local_by_route.contains(&address) || self.addresses.iter().any(|own| own.address == address)
    }
}
