//! Links, addresses and routes inside a namespace, by rtnetlink. What must be usable afterwards is waited for by the
//! kernel's own notifications.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, State};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

use super::{LabError, Namespace};

/// How long the kernel may take to bring a link or an address into use; a machine under load is slow, never this slow.
const PATIENCE: Duration = Duration::from_secs(30);

type Events = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>;

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// To a router; packets carry this source address where one is given.
    Gateway(IpAddr, Option<IpAddr>),
    /// Straight out of a device.
    Device(&'static str),
    /// Nowhere, without a word.
    Blackhole,
}

impl Namespace {
    /// Runs `work` with a netlink connection inside the namespace; `doing` goes into the error.
    fn netlink<T: Send>(
        &self,
        doing: &str,
        groups: &[MulticastGroup],
        work: impl AsyncFnOnce(Handle, Events) -> Result<T, rtnetlink::Error> + Send,
    ) -> Result<T, LabError> {
        let doing = format!("{doing} in namespace {}", self.name());
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(LabError::io("start a netlink connection"))?;
            runtime.block_on(async {
                let (connection, handle, events) =
                    new_multicast_connection(groups).map_err(LabError::io("open a netlink socket"))?;
                tokio::spawn(connection);
                match tokio::time::timeout(PATIENCE, work(handle, events)).await {
                    Ok(result) => result.map_err(|source| LabError::Netlink { doing, source: Box::new(source) }),
                    Err(_) => Err(LabError::Failed(format!("cannot {doing}: nothing within {} s", PATIENCE.as_secs()))),
                }
            })
        })
    }

    /// Makes a veth pair: `near` here, `far` in `other`. Both are down.
    pub(super) fn veth(&self, near: &'static str, other: &Self, far: &'static str) -> Result<(), LabError> {
        let other_fd = other.file().as_raw_fd();
        self.netlink(&format!("make the veth pair {near} and {far}"), &[], async move |handle, _| {
            // The far end needs a name that is free here before it moves.
            handle.link().add(LinkVeth::new(near, "moving").build()).execute().await?;
            let index = link(&handle, "moving").await?.header.index;
            let moved = LinkUnspec::new_with_index(index).name(far).setns_by_fd(other_fd).build();
            handle.link().set(moved).execute().await
        })
    }

    /// Makes a bridge and sets it up.
    pub(super) fn bridge(&self, name: &'static str) -> Result<(), LabError> {
        self.netlink(&format!("make the bridge {name}"), &[], async move |handle, _| {
            handle.link().add(LinkBridge::new(name).build()).execute().await
        })
    }

    /// Makes `port` a port of `bridge`.
    pub(super) fn enslave(&self, port: &'static str, bridge: &'static str) -> Result<(), LabError> {
        self.netlink(&format!("add {port} to {bridge}"), &[], async move |handle, _| {
            let bridge = link(&handle, bridge).await?.header.index;
            handle.link().set(LinkUnspec::new_with_name(port).controller(bridge).build()).execute().await
        })
    }

    /// Sets a device up, without waiting for its carrier.
    pub(super) fn up(&self, name: &'static str) -> Result<(), LabError> {
        self.netlink(&format!("set {name} up"), &[], async move |handle, _| {
            handle.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await
        })
    }

    /// Waits until a device that was set up can carry packets.
    pub(super) fn await_carrier(&self, name: &'static str) -> Result<(), LabError> {
        self.await_up(name, true)
    }

    /// Waits until the kernel has seen that an interface has no carrier, and sends nothing by it any more.
    pub(super) fn await_no_carrier(&self, name: &'static str) -> Result<(), LabError> {
        self.await_up(name, false)
    }

    fn await_up(&self, name: &'static str, up: bool) -> Result<(), LabError> {
        self.netlink(&format!("wait for the carrier of {name}"), &[MulticastGroup::Link], async move |handle, mut events| {
            if is_up(&link(&handle, name).await?) == up {
                return Ok(());
            }
            while let Some((message, _)) = events.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload
                    && is_named(&link, name)
                    && is_up(&link) == up
                {
                    return Ok(());
                }
            }
            Err(rtnetlink::Error::RequestFailed)
        })
    }

    /// Adds an address and waits until it can be used. The device must have its carrier.
    pub(super) fn address(&self, device: &'static str, address: IpAddr, prefix: u8) -> Result<(), LabError> {
        let groups = [MulticastGroup::Ipv6Ifaddr];
        self.netlink(&format!("add {address}/{prefix} to {device}"), &groups, async move |handle, mut events| {
            let index = link(&handle, device).await?.header.index;
            let mut request = handle.address().add(index, address, prefix);
            if address.is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await?;
            if address.is_ipv4() {
                return Ok(());
            }
            // IPv6 goes on working; its notification comes after it joined the multicast group that neighbours ask on.
            while let Some((message, _)) = events.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(new)) = message.payload
                    && new.attributes.contains(&AddressAttribute::Address(address))
                {
                    return Ok(());
                }
            }
            Err(rtnetlink::Error::RequestFailed)
        })
    }

    /// Adds an IPv6 address that another machine has, and waits until the kernel has found that out.
    pub(super) fn refused_address(&self, device: &'static str, address: Ipv6Addr, prefix: u8) -> Result<(), LabError> {
        let groups = [MulticastGroup::Ipv6Ifaddr];
        self.netlink(&format!("have {address}/{prefix} refused on {device}"), &groups, async move |handle, mut events| {
            let index = link(&handle, device).await?.header.index;
            handle.address().add(index, address.into(), prefix).execute().await?;
            while let Some((message, _)) = events.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(new)) = message.payload
                    && new.attributes.contains(&AddressAttribute::Address(address.into()))
                    && new.header.flags.contains(AddressHeaderFlags::Dadfailed)
                {
                    return Ok(());
                }
            }
            Err(rtnetlink::Error::RequestFailed)
        })
    }

    /// Waits until the kernel has given up asking for the hardware address of this neighbour, and has freed what waited for it.
    pub(super) fn await_failed_neighbour(&self, address: IpAddr) -> Result<(), LabError> {
        self.await_failure(address)?;
        await_bottom_halves().map_err(LabError::io("wait for the kernel's timers"))
    }

    fn await_failure(&self, address: IpAddr) -> Result<(), LabError> {
        let groups = [MulticastGroup::Neigh];
        self.netlink(&format!("wait until {address} is found to be nobody's"), &groups, async move |handle, mut events| {
            let mut known = handle.neighbours().get().execute();
            while let Some(neighbour) = known.try_next().await? {
                if is_failed(&neighbour, address) {
                    return Ok(());
                }
            }
            while let Some((message, _)) = events.next().await {
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) = message.payload
                    && is_failed(&neighbour, address)
                {
                    return Ok(());
                }
            }
            Err(rtnetlink::Error::RequestFailed)
        })
    }

    /// Adds a route to one address.
    pub(super) fn route_to(&self, destination: IpAddr, way: Way) -> Result<(), LabError> {
        self.route(destination, if destination.is_ipv4() { 32 } else { 128 }, way)
    }

    /// Adds a route.
    pub(super) fn route(&self, destination: IpAddr, prefix: u8, way: Way) -> Result<(), LabError> {
        self.netlink(&format!("add a route to {destination}/{prefix}"), &[], async move |handle, _| {
            let invalid = |_| rtnetlink::Error::RequestFailed;
            let mut route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(destination, prefix).map_err(invalid)?;
            match way {
                Way::Gateway(gateway, source) => {
                    route = route.gateway(gateway).map_err(invalid)?;
                    if let Some(source) = source {
                        route = route.pref_source(source).map_err(invalid)?;
                    }
                }
                Way::Device(device) => route = route.output_interface(link(&handle, device).await?.header.index),
                Way::Blackhole => route = route.kind(RouteType::BlackHole),
            }
            handle.route().add(route.build()).execute().await
        })
    }
}

/// Waits for the end of what the kernel was at, on any processor, in a bottom half. A neighbour may be seen failed, and the client told so,
/// while its timer still frees the packets that waited.
fn await_bottom_halves() -> io::Result<()> {
    /// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h: it waits for a grace period of RCU, whose readers bottom halves are.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call is given numbers, and touches no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

async fn link(handle: &Handle, name: &str) -> Result<LinkMessage, rtnetlink::Error> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await?;
    found.ok_or(rtnetlink::Error::RequestFailed)
}

fn is_named(link: &LinkMessage, name: &str) -> bool {
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name))
}

fn is_failed(neighbour: &NeighbourMessage, address: IpAddr) -> bool {
    let address = NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    });
    neighbour.header.state == NeighbourState::Failed && neighbour.attributes.contains(&address)
}

fn is_up(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::OperState(State::Up))
}
