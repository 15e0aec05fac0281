//! The one container behind a bridge on which a packet waited for an address that nobody there has: it was given another one meanwhile, or
//! IPv6 is off in it.
//!
//! That nobody has it can be said only where all that stands behind the bridge is watched. Of several containers nothing tells which one
//! is meant.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::around::Around;
use super::gather::Gatherer;
use super::told::OrTold as _;
use super::{Evidence, OwnAddress, sysctls, way};
use crate::journey::{Family, Journey};

/// A container that does not have the address which its bridge is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resident {
    /// The bridge.
    pub bridge: String,
    /// The inode number of the container's network namespace.
    pub netns: u32,
    /// The words before a command that run it there.
    pub entrance: Option<String>,
    /// The container's interface on the bridge.
    pub device: String,
    /// The address that this one has, of the same family.
    pub has: Option<IpAddr>,
    /// Whether IPv6 is off on that interface (`disable_ipv6`), where an IPv6 address is asked for.
    pub is_without_v6: bool,
}

/// The only container on a bridge.
struct Only<'a> {
    /// The bridge.
    bridge: &'a str,
    /// The inode number of the container's network namespace.
    netns: u32,
    /// Its interface on the bridge.
    device: &'a str,
    /// Its addresses, of every interface.
    addresses: &'a [OwnAddress],
}

impl Gatherer {
    /// The container that a packet may have been meant for which waited for an address in vain.
    pub(super) fn add_resident(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let here = journey.last_netns();
        let of_syn = |(whom, _): &(IpAddr, &str)| *whom == journey.last_destination().0;
        let known = evidence.rule.is_some() || evidence.unheard.is_some() || evidence.deaf.is_some();
        let Some((whom, device)) = way::waited_for(journey).filter(of_syn) else { return };
        if known || evidence.gateway.is_some() || evidence.astray.is_some() {
            return;
        }
        let found = self.lend_around(here, |_, around| {
            let Only { bridge, netns, device, addresses } = around.only_resident(device, whom)?;
            Some((bridge.to_owned(), netns, device.to_owned(), address_like(addresses, device, whom)))
        });
        let Some((bridge, netns, device, has)) = found.flatten() else { return };
        let Some(watched) = self.watched.get_mut(&netns) else { return };
        let entrance = watched.entrance.get(|| Ok(watched.netns.entrance())).or_told(netns, "look for processes").cloned();
        let settings = whom.is_ipv6().then(|| sysctls::of_routing(&watched.netns, Family::Ipv6, Some(&device)));
        let settings = settings.and_then(|read| read.or_told(netns, "read the settings")).unwrap_or_default();
        let setting = format!("net.ipv6.conf.{}.disable_ipv6", device.replace('.', "/"));
        let is_without_v6 = settings.iter().any(|(name, value)| *name == setting && value == "1");
        evidence.resident = Some(Resident { bridge, netns, entrance: entrance.flatten(), device, has, is_without_v6 });
    }
}

/// The address of this interface that others would ask for, of the same family; one of the same network first.
fn address_like(own: &[OwnAddress], device: &str, like: IpAddr) -> Option<IpAddr> {
    let is_local = |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let usable = |own: &&OwnAddress| {
        own.interface == device && own.unready.is_none() && own.address.is_ipv4() == like.is_ipv4() && !is_local(own.address)
    };
    let near = own.iter().filter(usable).find(|own| own.covers(like));
    near.or_else(|| own.iter().find(usable)).map(|own| own.address)
}

impl Around {
    /// The only container on the bridge that a device is or belongs to, where nobody that is seen has an address and all that stands behind
    /// the bridge is seen.
    fn only_resident(&self, device: &str, address: IpAddr) -> Option<Only<'_>> {
        let bridge = self.routed(device).filter(|device| device.up && device.kind.as_deref() == Some("bridge"))?;
        if self.others.iter().any(|other| other.addresses.iter().any(|own| own.address == address)) {
            return None;
        }
        let mut ports = self.links.iter().filter(|link| link.up && link.master == Some(bridge.index));
        let (port, None) = (ports.next()?, ports.next()) else { return None };
        let (other, end) = self.others.iter().find_map(|other| Some((other, other.end_of(port)?)))?;
        Some(Only { bridge: &bridge.name, netns: other.netns, device: &end.name, addresses: &other.addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::Only;
    use crate::evidence::around::Around;
    use crate::evidence::around::tests::around;
    use crate::output::samples::ip;

    #[test]
    fn a_container_is_told_by_its_address_only_where_it_is_the_only_one() {
        let found = |around: &Around, asked: &str| {
            let Only { bridge, netns, device, addresses } = around.only_resident("br0", ip(asked))?;
            Some((bridge.to_owned(), netns, device.to_owned(), addresses.len()))
        };
        let mut around = around(99);
        assert_eq!(found(&around, "10.9.0.9"), None, "either may be meant");
        let second = around.links.pop();
        assert_eq!(found(&around, "10.9.0.9"), Some(("br0".to_owned(), 14, "eth0".to_owned(), 1)));
        assert_eq!(found(&around, "10.9.0.2"), None, "somebody has it, though elsewhere");
        around.others.remove(0);
        assert_eq!(found(&around, "10.9.0.9"), None, "nobody looks behind its port");
        around.links.pop();
        around.links.extend(second);
        assert_eq!(found(&around, "10.9.0.9").map(|(_, netns, ..)| netns), Some(15));
    }
}
