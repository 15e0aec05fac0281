//! The network behind this machine from which a packet was sent on under its own address: whoever it went to has to know the way to that
//! network, which is this machine's own affair where containers, virtual machines or a tunnel's other end live there.

use std::io;
use std::net::IpAddr;

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, OwnAddress};
use crate::journey::{Journey, Origin, Outcome, Stage};
use crate::kernel::addresses::list_addresses;
use crate::kernel::links;
use crate::kernel::netns::Netns;

/// Kinds of interfaces at whose other end a tunnel's client or a virtual machine is.
const TUNNELS: [&str; 2] = ["tun", "wireguard"];

impl Watched {
    /// Adds it, for a packet that left this machine with a private source and whose answer did not come.
    pub(super) fn add_unmasked(&self, journey: &Journey, evidence: &mut Evidence) {
        let kept = journey.last_source() == journey.flow.source && journey.last_netns() == journey.netns;
        let on = journey.outcome == Outcome::Forwarded && journey.origin == Origin::Remote && !journey.is_turned_back();
        if on && kept && is_private(journey.flow.source) {
            let left = journey.stages.iter().rfind(|visit| visit.stage == Stage::TcEgress).and_then(|visit| visit.interface);
            let Some((entered, left)) = journey.interface.zip(left) else { return };
            let found = network_behind(&self.netns, journey.flow.source, (&entered, &left));
            evidence.unmasked = found.or_told(journey.netns, "list addresses and interfaces").flatten();
        }
    }
}

/// Whether nobody elsewhere has a way to an address unless he was given one.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// This machine's own address in the network that a source is of, where the packet entered by a container's port of a bridge or by a
/// tunnel, and did not leave to another bridge: there the way back leads through this machine as well.
fn network_behind(netns: &Netns, source: IpAddr, (entered, left): (&str, &str)) -> io::Result<Option<OwnAddress>> {
    let links = links::list_links(netns)?;
    let of = |name: &str| links.iter().find(|link| link.name == name);
    let is_behind = of(entered).is_some_and(|link| match link.kind.as_deref() {
        Some("veth") => link.master.is_some(),
        kind => kind.is_some_and(|kind| TUNNELS.contains(&kind)),
    });
    if !is_behind || of(left).is_none_or(|link| link.kind.as_deref() == Some("bridge")) {
        return Ok(None);
    }
    Ok(list_addresses(netns)?.into_iter().find(|own| own.covers(source) && own.interface != left))
}
