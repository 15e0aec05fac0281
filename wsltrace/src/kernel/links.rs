//! The interfaces of a network namespace, by netlink (what /sys/class/net shows depends on who mounted it), and news of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::netlink;
use super::netns::Netns;

/// The multicast group of news about links, as a bit.
const RTMGRP_LINK: u32 = 1;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel's, and no two make one")]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// It is switched on (`IFF_UP`).
    pub up: bool,
    /// Something is at its other end (`IFF_LOWER_UP`): of a tun device, the program that has it open.
    pub carrier: bool,
    /// The largest packet that it takes, bytes.
    pub mtu: u32,
    /// It neither asks for hardware addresses nor answers who asks (`IFF_NOARP`), as devices without such addresses.
    pub no_arp: bool,
    /// `ARPHRD_*`: 1 Ethernet, 772 loopback, 65534 none.
    pub arphrd: u16,
    /// Hardware address, bytes as on the wire.
    pub address: Vec<u8>,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The number of the interface that it hangs on (`IFLA_LINK`); of a veth: its other end.
    pub peer_index: Option<u32>,
    /// The other end's namespace, by this namespace's own numbering; `None` when it is this one.
    pub peer_nsid: Option<i32>,
    /// `veth`, `bridge`, ...; hardware has none.
    pub kind: Option<String>,
    /// For a port of a bridge: the bridge sends nothing from here to another that is isolated too.
    pub isolated: bool,
    /// For a port of a bridge that is switched on: it does not forward (STP's state).
    pub held_back: bool,
    /// For a bridge: each port and the bridge itself is in some VLANs only (`vlan_filtering`).
    pub filters_vlans: bool,
    /// How many frames came that were none of the device's (`rx_frame_errors`).
    pub frame_errors: u64,
    /// Whether an XDP program takes its packets first.
    pub xdp: bool,
}

impl Link {
    /// Whether it shares the wire of another interface, which may be in another namespace, under addresses of its own.
    pub fn is_stacked(&self) -> bool {
        matches!(self.kind.as_deref(), Some("macvlan" | "ipvlan"))
    }

    /// Whether it is one of two that give each other what is sent by them, as those are that lead to containers.
    pub fn is_of_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }
}

/// `ARPHRD_ETHER`.
pub const ARPHRD_ETHER: u16 = 1;
/// `ARPHRD_LOOPBACK`.
pub const ARPHRD_LOOPBACK: u16 = 772;

/// Something changed among the interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface is new or has changed.
    Changed(Link),
    /// The interface of this number is gone.
    Gone(u32),
    /// News were lost: list the interfaces again.
    Lost,
}

fn link_of(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        no_arp: message.header.flags.contains(LinkFlags::Noarp),
        arphrd: message.header.link_layer_type.into(),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Stats64(stats) => link.frame_errors = stats.rx_frame_errors,
            LinkAttribute::Address(address) => link.address = address,
            // 0 says that it has none, or has none any longer.
            LinkAttribute::Controller(index) => link.master = (index != 0).then_some(index),
            LinkAttribute::Link(index) => link.peer_index = (index != 0).then_some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_nsid = (id >= 0).then_some(id),
            LinkAttribute::Xdp(states) => {
                link.xdp = states.iter().any(|state| matches!(state, LinkXdp::Attached(how) if *how != XdpAttached::None));
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Bridge(settings)) => {
                            link.filters_vlans = settings.contains(&InfoBridge::VlanFiltering(true));
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
                            link.isolated = settings.contains(&InfoBridgePort::Isolated(true));
                            let forwards = |setting: &InfoBridgePort| {
                                if let InfoBridgePort::State(state) = setting {
                                    Some(*state == BridgePortState::Forwarding)
                                } else {
                                    None
                                }
                            };
                            link.held_back = settings.iter().find_map(forwards) == Some(false);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// The interfaces of a namespace, by their numbers.
pub fn list_links(netns: &Netns) -> io::Result<Vec<Link>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &request))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(link_of(message)),
            _ => None,
        })
        .collect())
}

/// The kind of the queueing discipline that a device's packets enter first; `None` when there is none.
pub fn root_qdisc(netns: &Netns, index: u32) -> io::Result<Option<String>> {
    Ok(root(netns, index)?.and_then(|message| message.attributes.into_iter().find_map(kind)))
}

/// The kind of an interface's root queueing discipline and how many packets wait in it, where it is one that sends slowly or late.
pub fn shaper(netns: &Netns, index: u32) -> io::Result<Option<(String, u32)>> {
    let Some(message) = root(netns, index)? else { return Ok(None) };
    let packets = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => {
            stats.iter().find_map(|one| if let TcStats2::Queue(queue) = one { Some(queue.qlen) } else { None })
        }
        _ => None,
    });
    let kind = message.attributes.into_iter().find_map(kind).filter(|kind| !PLAIN_QUEUES.contains(&kind.as_str()));
    Ok(kind.zip(packets))
}

fn root(netns: &Netns, index: u32) -> io::Result<Option<TcMessage>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &request))?;
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(message)
            if u32::try_from(message.header.index) == Ok(index) && message.header.parent == TcHandle::ROOT =>
        {
            Some(message)
        }
        _ => None,
    }))
}

fn kind(attribute: TcAttribute) -> Option<String> {
    if let TcAttribute::Kind(kind) = attribute { Some(kind) } else { None }
}

/// Queueing disciplines that drop nothing but what does not fit. Not `pfifo` and `bfifo`: somebody has chosen their length.
const PLAIN_QUEUES: [&str; 9] = ["noqueue", "pfifo_fast", "fq", "fq_codel", "codel", "sfq", "mq", "mqprio", "cake"];

/// Whether filters of traffic control look at what leaves by an interface: of `clsact`, or of its root queueing discipline.
pub fn filters_egress(netns: &Netns, index: u32) -> io::Result<bool> {
    const EGRESS: TcHandle = TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_EGRESS };
    let index = i32::try_from(index).map_err(io::Error::other)?;
    for parent in [TcHandle::UNSPEC, EGRESS] {
        let mut all = TcMessage::default();
        (all.header.index, all.header.parent) = (index, parent);
        let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &RouteNetlinkMessage::GetTrafficFilter(all)))?;
        if answers.iter().any(|answer| matches!(answer, RouteNetlinkMessage::NewTrafficFilter(_))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The numbers of the interfaces at which tc may stop a packet: those with a `clsact` or `ingress` queueing discipline, where
/// filters may stand, and those with one that shapes or loses.
pub fn filtered_interfaces(netns: &Netns) -> io::Result<Vec<u32>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let answers = netns.try_run(|| netlink::dump(NETLINK_ROUTE, &request))?;
    let holds_filters =
        |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if !PLAIN_QUEUES.contains(&kind.as_str()));
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) if message.attributes.iter().any(holds_filters) => {
                u32::try_from(message.header.index).ok()
            }
            _ => None,
        })
        .collect())
}

/// Tells of interfaces that come, change and go.
#[derive(Debug)]
pub struct LinkWatcher {
    socket: Socket,
}

impl LinkWatcher {
    /// Begins to watch a namespace; list the interfaces after this, so that none falls between.
    pub fn new(netns: &Netns) -> io::Result<Self> {
        Ok(Self { socket: netns.try_run(subscribe)? })
    }

    /// Begins to watch a namespace and all those that it has a number for, as it has for every one at the other end of its veths. Which
    /// of them an event is of cannot be told.
    pub fn with_others(netns: &Netns) -> io::Result<Self> {
        let socket = netns.try_run(|| {
            let socket = subscribe()?;
            socket.set_listen_all_namespaces(true)?;
            Ok(socket)
        })?;
        Ok(Self { socket })
    }

    /// The news that are waiting, without blocking; wait for the descriptor to become readable before.
    pub fn read(&self) -> io::Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        loop {
            let bytes = match self.socket.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    events.push(LinkEvent::Lost);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut messages = Vec::new();
            netlink::decode(&bytes, &mut messages)?;
            events.extend(messages.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => Some(LinkEvent::Changed(link_of(message))),
                // A port that leaves its bridge is told by a deletion in the bridge's family.
                RouteNetlinkMessage::DelLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                    Some(LinkEvent::Gone(message.header.index))
                }
                _ => None,
            }));
        }
    }
}

fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl AsFd for LinkWatcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for LinkWatcher {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
