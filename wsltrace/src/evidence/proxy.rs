//! docker-proxy: a program of Docker's that takes the connections of a published port and makes others into the container.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::told::OrTold as _;
use super::{Gatherer, Listener};
use crate::wsl::takers;

/// Where docker-proxy leads the connections that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxied {
    /// Its process.
    pub pid: u32,
    /// The container's end.
    #[schemars(with = "String")]
    pub to: SocketAddr,
    /// The listeners on that port in the container; `None` where its network namespace is not watched.
    pub there: Option<Vec<Listener>>,
}

impl Proxied {
    /// Whether nobody in the container takes what it leads there; `None` where that is not known.
    pub fn is_to_nobody(&self) -> Option<bool> {
        let there = self.there.as_ref()?;
        Some(!there.iter().any(|listener| listener.device.is_some()) && takers(there, self.to.ip(), None).is_empty())
    }
}

/// Where those of the listeners that are docker-proxy lead their connections, with their processes.
pub fn proxied(listeners: &[Listener]) -> Vec<(u32, SocketAddr)> {
    let proxies = listeners.iter().filter(|listener| listener.command.as_deref() == Some("docker-proxy"));
    // One that has just ended leads nowhere, and takes nothing.
    proxies
        .filter_map(|proxy| Some((proxy.pid?, proxied_to(&fs::read(format!("/proc/{}/cmdline", proxy.pid?)).ok()?)?)))
        .collect()
}

impl Gatherer {
    /// What the proxies among these listeners lead to.
    pub(super) fn proxied(&mut self, listeners: &[Listener]) -> Vec<Proxied> {
        let ends = proxied(listeners);
        ends.into_iter().map(|(pid, to)| Proxied { pid, to, there: self.listeners_at(to) }).collect()
    }

    /// The listeners on a port in the one watched namespace that has the address, with their owners.
    pub(super) fn listeners_at(&mut self, to: SocketAddr) -> Option<Vec<Listener>> {
        let mut owners = self.watched.iter_mut().filter_map(|(inum, watched)| {
            watched.has(to.ip()).or_told(*inum, "list the addresses").filter(|has| *has).map(|_| (*inum, watched))
        });
        // Networks of several containers may have the same addresses.
        let (Some((inum, watched)), None) = (owners.next(), owners.next()) else { return None };
        let found = watched.listeners(to.port(), None).or_told(inum, "list the listeners")?;
        Some(self.all_with_owners(found))
    }
}

/// The end to which docker-proxy leads connections, from its command line: the arguments, each ended by a zero byte.
fn proxied_to(command_line: &[u8]) -> Option<SocketAddr> {
    let words: Vec<&str> = command_line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let value = |option: &str| words.iter().skip_while(|word| **word != option).nth(1);
    if value("-proto").is_some_and(|protocol| *protocol != "tcp") {
        return None;
    }
    let address: IpAddr = value("-container-ip")?.parse().ok()?;
    (address != Ipv4Addr::UNSPECIFIED).then_some(SocketAddr::new(address, value("-container-port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_proxy_says_where_it_leads() {
        let line = |protocol: &str| {
            let words = ["/usr/bin/docker-proxy", "-proto", protocol, "-host-ip", "0.0.0.0", "-host-port", "8080"];
            let words = words.into_iter().chain(["-container-ip", "172.17.0.2", "-container-port", "80", "-use-listen-fd"]);
            words.flat_map(|word| word.bytes().chain([0])).collect::<Vec<u8>>()
        };
        assert_eq!(proxied_to(&line("tcp")), Some(SocketAddr::from(([172, 17, 0, 2], 80))));
        assert_eq!(proxied_to(&line("udp")), None);
        assert_eq!(proxied_to(b"docker-proxy\0-container-ip\0"), None);
        assert_eq!(proxied_to(b"\xff\0"), None);
    }
}
