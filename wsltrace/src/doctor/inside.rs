//! Asks the containers: who listens there, which rules they have, and how their answers leave.

use std::net::IpAddr;

use super::gather::{Asked, OWNERS_LIMIT};
use super::unserved::{End, Inside};
use crate::evidence::{Listener, namespaces_next_to, routes, sockets, sysctls};
use crate::journey::Family;
use crate::kernel::addresses::{OwnAddress, list_addresses};
use crate::kernel::links::{Link, list_links};
use crate::kernel::netns::Netns;
use crate::simulate::{Rulesets, read};

/// What is in the containers.
pub(super) struct Elsewhere {
    /// All that listen there.
    pub(super) listeners: Vec<Listener>,
    /// Their processes that somebody has stopped.
    pub(super) stopped: Vec<u32>,
    /// The namespaces with rules that may stop packets.
    pub(super) guarded: Vec<u32>,
    /// The containers.
    pub(super) inside: Vec<Inside>,
}

/// Listeners in the namespaces of containers, which of those have firewall rules, and how answers to these clients leave; only root
/// may enter them.
pub(super) fn elsewhere(netns: &Netns, clients: &[IpAddr], asked: &mut Asked) -> Elsewhere {
    let behind = asked.take("the containers", namespaces_next_to(netns));
    let (mut found, mut guarded, mut inside) = (Vec::new(), Vec::new(), Vec::new());
    for joined in behind.joined {
        let listeners = asked.take("the listening sockets of a container", sockets::all_listeners(&joined.netns));
        let rulesets = read(&joined.netns);
        // Where nobody listens rules that stop packets do not matter.
        if !listeners.is_empty() && rulesets.as_ref().map_or(true, Rulesets::may_stop) {
            guarded.push(joined.netns.inum());
        }
        let addresses = asked.take("the addresses of a container", list_addresses(&joined.netns));
        let addresses: Vec<_> = addresses.into_iter().filter(|own| !own.address.is_loopback()).collect();
        let links = asked.take("the interfaces of a container", list_links(&joined.netns));
        let leads_on = rulesets.as_ref().map_or(true, Rulesets::may_lead_on);
        inside.push(Inside {
            netns: joined.netns.inum(),
            through: joined.through,
            addresses: addresses.iter().map(|own| own.address).collect(),
            leads_on,
            ends: addresses.iter().map(|own| end(&joined.netns, own, &links, clients, asked)).collect(),
        });
        found.extend(listeners);
    }
    let listeners = sockets::with_owners(found, OWNERS_LIMIT);
    Elsewhere { stopped: sockets::stopped(&listeners), listeners, guarded, inside }
}

fn end(netns: &Netns, own: &OwnAddress, links: &[Link], clients: &[IpAddr], asked: &mut Asked) -> End {
    let (address, interface) = (own.address, own.interface.clone());
    let settings = sysctls::of_routing(netns, Family::Ipv4, Some(&interface));
    let settings = asked.take("the settings of a container", settings);
    let mut back = Vec::new();
    for client in clients.iter().filter(|client| client.is_ipv4() == address.is_ipv4()) {
        let answer = routes::Question { from: address, to: *client, came_by: None };
        // An error is no missing route.
        if let Some(by) = asked.take("the routes of a container", routes::way_by(netns, answer, None).map(Some)) {
            back.push((*client, by));
        }
    }
    let link = links.iter().find(|link| link.name == interface);
    End {
        address,
        // One that could not be listed is not said to be off.
        up: link.is_none_or(|link| link.up),
        no_carrier: link.is_some_and(|link| link.up && !link.carrier),
        strict: settings.iter().any(|(name, value)| name.ends_with(".rp_filter") && value == "1")
            && !settings.iter().any(|(name, value)| name.ends_with(".rp_filter") && value == "2"),
        interface,
        back,
    }
}
