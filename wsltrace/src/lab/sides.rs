//! The lab's sides and how they are joined.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::client::warm_up;
use super::namespace::ipv6_available;
use super::network::Way;
use super::scenario::Scenario;
use super::turn::Turn;
use super::{LabError, Namespace};

/// The client's addresses.
pub(super) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 1);
pub(super) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x28, 0x16, 0, 0, 0, 0, 1);
/// WSL's addresses.
pub(super) const WSL_V4: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 2);
const WSL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x28, 0x16, 0, 0, 0, 0, 2);
/// The address of what shares WSL's wire.
pub(super) const BESIDE: Ipv4Addr = Ipv4Addr::new(172, 28, 16, 9);
/// The bridge's address and the container's behind it.
pub(super) const DOCKER0: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
pub(super) const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
/// WSL's second address and the one of the backend behind it.
pub(super) const ETH1: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
pub(super) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// The address of a bridge in the container, and the pod's behind it.
const CNI0: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(super) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

/// One side of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that connects from outside.
    Client,
    /// The one that is traced.
    Wsl,
    /// Behind a bridge in WSL.
    Container,
    /// In a network of its own behind WSL.
    Backend,
    /// Behind a bridge in the container, as a pod in a node of kind.
    Pod,
    /// On WSL's own wire, by a macvlan on its `eth0`.
    Beside,
}

/// A lab; gone when dropped or when the process ends.
#[derive(Debug)]
pub struct Lab {
    /// The one that connects from outside.
    pub client: Namespace,
    /// The one that is traced.
    pub wsl: Namespace,
    /// What hangs behind WSL, when it was asked for.
    behind: Vec<(Side, Namespace)>,
    /// Whether the client comes by IPv6.
    pub(super) v6: bool,
    /// Servers and other sockets that live as long as the lab.
    kept: Vec<Box<dyn Any + Send + Sync>>,
    /// Held until all of it is gone.
    _turn: Turn,
}

impl Lab {
    /// Builds a healthy lab with nothing listening; `behind` is [`Side::Container`], [`Side::Backend`],
    /// [`Side::Beside`], or [`Side::Pod`] for a container with a pod in it.
    pub fn new(behind: Option<Side>) -> Result<Self, LabError> {
        Self::build(behind, Turn::together())
    }

    fn build(behind: Option<Side>, turn: Turn) -> Result<Self, LabError> {
        let (client, wsl) = (Namespace::new("client")?, Namespace::new("wsl")?);
        // Not the client's: 127.0.0.1 must be an address that it can send to WSL.
        wsl.up("lo")?;
        join(&client, "eth0", &wsl, "eth0")?;
        client.address("eth0", CLIENT_V4.into(), 20)?;
        wsl.address("eth0", WSL_V4.into(), 20)?;
        wsl.route(Ipv4Addr::UNSPECIFIED.into(), 0, Way::Gateway(CLIENT_V4.into(), None))?;
        warm_up(&client, CLIENT_V4.into(), &wsl, WSL_V4.into())?;
        if ipv6_available() {
            client.address("eth0", CLIENT_V6.into(), 64)?;
            wsl.address("eth0", WSL_V6.into(), 64)?;
            warm_up(&client, CLIENT_V6.into(), &wsl, WSL_V6.into())?;
        }
        let behind = match behind {
            None => Vec::new(),
            Some(Side::Pod) => {
                let container = container(&wsl)?;
                let pod = pod(&container)?;
                vec![(Side::Container, container), (Side::Pod, pod)]
            }
            Some(side @ Side::Beside) => vec![(side, beside(&wsl, &client)?)],
            Some(side @ Side::Container) => vec![(side, container(&wsl)?)],
            Some(side) => vec![(side, backend(&wsl)?)],
        };
        Ok(Self { client, wsl, behind, v6: false, kept: Vec::new(), _turn: turn })
    }

    /// A healthy lab for a scenario: with what hangs behind WSL there, and for its family.
    pub fn of(scenario: &Scenario) -> Result<Self, LabError> {
        let turn = if scenario.alone { Turn::alone() } else { Turn::together() };
        Ok(Self { v6: scenario.target.is_ipv6(), ..Self::build(scenario.behind, turn)? })
    }

    /// Has what is put in from now on stand beside what is there: rules of nftables in a table of their own.
    pub(super) fn break_once_more(&mut self) {
        let behind = self.behind.iter_mut().map(|(_, namespace)| namespace);
        for namespace in [&mut self.client, &mut self.wsl].into_iter().chain(behind) {
            namespace.table = "other";
        }
    }

    /// The namespace of a side; an error when the lab was built without it.
    pub fn side(&self, side: Side) -> Result<&Namespace, LabError> {
        self.find(side).ok_or_else(|| LabError::Failed(format!("this lab has no {side:?} side")))
    }

    /// The namespace of a side, if it was built.
    pub(super) fn find(&self, side: Side) -> Option<&Namespace> {
        match side {
            Side::Client => Some(&self.client),
            Side::Wsl => Some(&self.wsl),
            _ => self.behind.iter().find(|(built, _)| *built == side).map(|(_, namespace)| namespace),
        }
    }

    /// The address that stands for all, in the family that the client comes by.
    pub(super) fn any(&self) -> IpAddr {
        if self.v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// An address of the lab in the family that the client comes by.
    pub(super) fn at(&self, address: Ipv4Addr) -> IpAddr {
        if self.v6 { twin(address.into()) } else { address.into() }
    }

    /// nft's name of the family that the client comes by.
    pub(super) fn family(&self) -> &'static str {
        if self.v6 { "ip6" } else { "ip" }
    }

    /// Makes WSL forward.
    pub(super) fn forward(&self) -> Result<(), LabError> {
        self.wsl.set_sysctl(if self.v6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" }, "1")
    }

    /// Runs one of the iptables programs in WSL, that of the client's family, with arguments separated by blanks.
    pub(super) fn iptables(&self, program: &'static str, arguments: &str) -> Result<(), LabError> {
        self.wsl.iptables(if self.v6 { over_v6(program) } else { program }, arguments)
    }

    /// Runs commands of `ip` in WSL, one a line, for the client's family.
    pub(super) fn ip(&self, commands: &str) -> Result<(), LabError> {
        self.wsl.ip_of(self.v6, commands)
    }

    /// Ends what hangs behind WSL, as a container ends: nothing is left in its namespace.
    pub fn end_behind(&mut self) {
        self.behind.clear();
    }

    /// Keeps a server, or whatever else must not end before the lab.
    pub fn keep(&mut self, server: impl Any + Send + Sync) {
        self.kept.push(Box::new(server));
    }

    /// What was kept of this type, in the order of keeping.
    pub(super) fn kept<T: Any>(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().filter_map(|kept| kept.downcast_ref())
    }

    /// The container's own address, behind WSL.
    pub fn container_address() -> IpAddr {
        CONTAINER.into()
    }

    /// The address that the client uses to reach WSL in this family.
    pub fn wsl_address(v6: bool) -> IpAddr {
        if v6 { WSL_V6.into() } else { WSL_V4.into() }
    }
}

/// The IPv6 address that stands for an IPv4 address of the lab.
pub(super) fn twin(address: IpAddr) -> IpAddr {
    let IpAddr::V4(address) = address else { return address };
    let [first, second, _, last] = address.octets();
    let host = u16::from(last);
    IpAddr::V6(match (first, second) {
        (0, _) => Ipv6Addr::UNSPECIFIED,
        (127, _) => Ipv6Addr::LOCALHOST,
        (172, 28) => Ipv6Addr::new(0xfd00, 0x28, 0x16, 0, 0, 0, 0, host),
        _ => Ipv6Addr::new(0xfd00, 0x100 | u16::from(second), 0, 0, 0, 0, 0, host),
    })
}

/// The program that does for IPv6 what this one does for IPv4.
pub(super) fn over_v6(program: &'static str) -> &'static str {
    match program {
        "iptables-nft" => "ip6tables-nft",
        "iptables-legacy" => "ip6tables-legacy",
        other => other,
    }
}

/// Joins two namespaces by a veth pair that can carry packets.
pub(super) fn join(near: &Namespace, near_name: &'static str, far: &Namespace, far_name: &'static str) -> Result<(), LabError> {
    near.veth(near_name, far, far_name)?;
    near.up(near_name)?;
    far.up(far_name)?;
    near.await_carrier(near_name)?;
    far.await_carrier(far_name)
}

fn container(wsl: &Namespace) -> Result<Namespace, LabError> {
    let container = Namespace::new("container")?;
    container.up("lo")?;
    wsl.bridge("docker0")?;
    join(wsl, "veth0", &container, "eth0")?;
    wsl.enslave("veth0", "docker0")?;
    wsl.await_carrier("docker0")?;
    attach(wsl, "docker0", DOCKER0, &container, CONTAINER, 16)?;
    Ok(container)
}

fn pod(node: &Namespace) -> Result<Namespace, LabError> {
    let pod = Namespace::new("pod")?;
    pod.up("lo")?;
    node.bridge("cni0")?;
    join(node, "veth0", &pod, "eth0")?;
    node.enslave("veth0", "cni0")?;
    node.await_carrier("cni0")?;
    attach(node, "cni0", CNI0, &pod, POD, 24)?;
    Ok(pod)
}

fn backend(wsl: &Namespace) -> Result<Namespace, LabError> {
    let backend = Namespace::new("backend")?;
    backend.up("lo")?;
    join(wsl, "eth1", &backend, "eth0")?;
    attach(wsl, "eth1", ETH1, &backend, BACKEND, 24)?;
    Ok(backend)
}

fn beside(wsl: &Namespace, client: &Namespace) -> Result<Namespace, LabError> {
    let beside = Namespace::new("beside")?;
    beside.up("lo")?;
    // Linux 6.12 looks for the name on this side too (7.2 does not), so it gets its own over there.
    wsl.ip(&format!("link add link eth0 name beside0 netns {} type macvlan mode bridge", beside.path().display()))?;
    beside.ip("link set beside0 name eth0")?;
    beside.up("eth0")?;
    beside.await_carrier("eth0")?;
    beside.address("eth0", BESIDE.into(), 20)?;
    // A macvlan does not reach the interface that it stands on.
    warm_up(client, CLIENT_V4.into(), &beside, BESIDE.into())?;
    if ipv6_available() {
        beside.address("eth0", twin(BESIDE.into()), 64)?;
        warm_up(client, CLIENT_V6.into(), &beside, twin(BESIDE.into()))?;
    }
    Ok(beside)
}

/// Gives both ends their addresses, the inner one its default route.
fn attach(
    wsl: &Namespace,
    device: &'static str,
    near: Ipv4Addr,
    inner: &Namespace,
    far: Ipv4Addr,
    prefix: u8,
) -> Result<(), LabError> {
    wsl.address(device, near.into(), prefix)?;
    inner.address("eth0", far.into(), prefix)?;
    inner.route(Ipv4Addr::UNSPECIFIED.into(), 0, Way::Gateway(near.into(), None))?;
    warm_up(wsl, near.into(), inner, far.into())?;
    if ipv6_available() {
        let (near, far) = (twin(near.into()), twin(far.into()));
        wsl.address(device, near, 64)?;
        inner.address("eth0", far, 64)?;
        inner.route(Ipv6Addr::UNSPECIFIED.into(), 0, Way::Gateway(near, None))?;
        warm_up(wsl, near, inner, far)?;
    }
    Ok(())
}
