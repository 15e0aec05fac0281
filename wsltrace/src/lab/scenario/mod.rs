//! The table of scenarios. To add one, add it to the file of its subject: nothing else has to change.

mod astray;
mod back;
mod beside;
mod bridge;
mod confirmation;
mod conntrack;
mod deaf;
mod detail;
mod device;
mod docker;
mod firewall;
mod foreign;
mod forwarding;
mod further;
mod handshake;
mod hardware;
mod healthy;
mod ingress;
mod ipsec;
mod led;
mod limits;
mod listener;
mod loopback;
mod masquerade;
mod mirrored;
mod neighbour;
mod nested;
mod overflow;
mod overlap;
mod packet;
mod policy;
mod proxy;
mod queue;
mod reader;
mod reply;
mod routing;
mod served;
mod shared;
mod stale;
mod stall;
mod suppressed;
mod synproxy;
mod tables;
mod tunnel;
mod untaken;
mod v6;
mod vrf;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::client::{ANSWER_PATIENCE, SILENCE};
pub(super) use forwarding::publish;

use super::mend::Mended;
use super::{Attempt, Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side, Step};
use crate::diagnosis::{Cause, Code};
use crate::evidence::Backend;
use crate::journey::{Conntrack, Origin, Outcome, Stage};
use crate::kernel::config;
use crate::probe::Detail;

/// What waits in a lab for something that must happen.
pub type Settle = fn(&Lab) -> Result<(), LabError>;

/// A lab with one known fault, and what must be said about it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is broken, in one line.
    pub title: &'static str,
    /// The subject it is listed under.
    pub group: &'static str,
    /// The firewall tools it needs.
    pub tools: &'static [&'static str],
    /// What the kernel must have been built with, beyond what the program itself needs: names of its configuration's options.
    pub options: &'static [&'static str],
    /// Whether it needs IPv6.
    pub v6: bool,
    /// What hangs behind WSL.
    pub behind: Option<Side>,
    /// Breaks a healthy lab and starts the servers.
    pub break_it: fn(&mut Lab) -> Result<(), LabError>,
    /// Who connects: the client, or WSL itself.
    pub from: Side,
    /// The address that the client connects to, on port [`PORT`].
    pub target: IpAddr,
    /// What the client must see; otherwise the fault is not in force.
    pub client: Seen,
    /// How long it waits for an answer that must not come.
    pub silence: Duration,
    /// How it behaves.
    pub manner: Manner,
    /// The port that it connects from; 0: any.
    pub from_port: u16,
    /// A counter of the kernel in the `wsl` namespace that this fault moves once for each SYN: its group and name.
    pub witness: Option<(&'static str, &'static str)>,
    /// Waits, after the client saw its end, for what must have happened before the tracer is stopped; `None`: nothing.
    pub settle: Option<Settle>,
    /// How many tracers watch at once; each must be right.
    pub tracers: usize,
    /// How closely they watch.
    pub detail: Detail,
    /// Whether it moves this whole process, with every socket that other labs make meanwhile.
    pub alone: bool,
    /// Why the connection that is made must be said not to get on.
    pub stall: Option<Cause>,
    /// What must be told on standard error; empty: nothing in particular.
    pub note: &'static str,
    /// What the printed commands must change, where they can mend the fault: afterwards the client connects.
    pub mended: Option<Mended>,
    /// What must be reported.
    pub expect: Expect,
    /// What must be reported about SYNs that are sent again, where that is something else.
    pub again: Option<Expect>,
}

/// What must be reported about each SYN of a scenario.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Where the connection comes from.
    pub origin: Origin,
    /// How the journey may be said to end.
    pub outcomes: &'static [Outcome],
    /// Where it dies: the stage and the side.
    pub died: Option<(Stage, Side)>,
    /// Where what the client sends to confirm the answer dies.
    pub unconfirmed: Option<Side>,
    /// The drop reason, and the first kernel known to give it.
    pub reason: Option<(&'static str, (u32, u32))>,
    /// What conntrack must be said to think of the SYN, where that can be told.
    pub conntrack: Option<Conntrack>,
    /// What the diagnosis may be.
    pub codes: &'static [Code],
    /// Whether an event of this very packet proves the diagnosis (on kernels that give the drop reason).
    pub proved: bool,
    /// Whether nothing can prove the diagnosis, so that it must be inferred.
    pub inferred: bool,
    /// The source address and the destination as the packet last had them, when something rewrote them; not checked otherwise.
    pub translated: Option<(IpAddr, SocketAddr)>,
    /// The firewall that did it, and its chain.
    pub firewall: Option<(Backend, &'static str)>,
    /// Words that the diagnosis must say.
    pub says: &'static str,
    /// Every stage, the answer's included.
    pub path: Vec<Step>,
}

impl Scenario {
    /// The client's attempt.
    pub fn attempt(&self) -> Attempt {
        let patience = if matches!(self.client, Seen::NoAnswer | Seen::Unserved) { self.silence } else { ANSWER_PATIENCE };
        Attempt { target: (self.target, PORT).into(), from_port: self.from_port, manner: self.manner, patience }
    }

    /// What must be reported about the SYN of this number, counted from 1.
    pub fn expectation(&self, attempt: u64) -> &Expect {
        self.again.as_ref().filter(|_| attempt > 1).unwrap_or(&self.expect)
    }

    /// Why this kernel cannot have the fault, whatever is installed.
    pub fn impossible(&self) -> Option<String> {
        let missing = config::built_without(self.options);
        (!missing.is_empty()).then(|| format!("this kernel was built without {}", missing.join(" and ")))
    }

    /// Why it cannot be played on this machine, as far as can be known without trying.
    pub fn obstacle(&self) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("needs root".into());
        }
        if self.v6 && !super::namespace::ipv6_available() {
            return Some("this kernel has no IPv6".into());
        }
        let missing = self.tools.iter().find(|tool| crate::kernel::programs::locate(tool).is_none())?;
        Some(format!("{missing} is not installed"))
    }
}

impl Expect {
    /// Netfilter drops the SYN at this stage of this side.
    fn dropped_by_netfilter(self, stage: Stage, side: Side) -> Self {
        Self { outcomes: &[Outcome::Dropped], died: Some((stage, side)), reason: Some(("NETFILTER_DROP", (5, 18))), ..self }
    }

    /// A chain of nftables drops it where WSL's INPUT filters.
    fn dropped_at_input(self) -> Self {
        Self {
            codes: &[Code::FirewallDrop],
            firewall: Some((Backend::Nft, "input")),
            path: super::path::inbound(Stage::InputFilter),
            ..self.dropped_by_netfilter(Stage::InputFilter, Side::Wsl)
        }
    }

    /// TCP of this side finds no socket for the SYN, and refuses it by a reset.
    fn refused_by_kernel(self, side: Side) -> Self {
        Self {
            outcomes: &[Outcome::Refused],
            died: Some((Stage::SocketLookup, side)),
            reason: Some(("NO_SOCKET", (5, 18))),
            ..self
        }
    }
}

/// Every scenario, in the order in which they are listed.
pub fn all() -> Vec<Scenario> {
    let own = own();
    let again = [detail::scenarios(&own), v6::scenarios(&own)].concat();
    [own, again].concat()
}

/// Those that stand for themselves: the others are some of these, played in another way.
fn own() -> Vec<Scenario> {
    [
        healthy::scenarios(),
        firewall::scenarios(),
        further::scenarios(),
        proxy::scenarios(),
        limits::scenarios(),
        listener::scenarios(),
        routing::scenarios(),
        forwarding::scenarios(),
        masquerade::scenarios(),
        tables::scenarios(),
        astray::scenarios(),
        reader::scenarios(),
        neighbour::scenarios(),
        hardware::scenarios(),
        deaf::scenarios(),
        led::scenarios(),
        nested::scenarios(),
        beside::scenarios(),
        loopback::scenarios(),
        reply::scenarios(),
        untaken::scenarios(),
        overlap::scenarios(),
        queue::scenarios(),
        conntrack::scenarios(),
        mirrored::scenarios(),
        ingress::scenarios(),
        suppressed::scenarios(),
        stale::scenarios(),
        handshake::scenarios(),
        overflow::scenarios(),
        served::scenarios(),
        stall::scenarios(),
        confirmation::scenarios(),
        policy::scenarios(),
        ipsec::scenarios(),
        shared::scenarios(),
        packet::scenarios(),
        bridge::scenarios(),
        docker::scenarios(),
        back::scenarios(),
        foreign::scenarios(),
        tunnel::scenarios(),
        device::scenarios(),
        synproxy::scenarios(),
        vrf::scenarios(),
    ]
    .concat()
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|s| s.name == name)
}

/// A remote IPv4 connection to a healthy lab with a server: what the other scenarios change.
fn template(name: &'static str, title: &'static str, group: &'static str) -> Scenario {
    Scenario {
        name,
        title,
        group,
        tools: &[],
        options: &[],
        v6: false,
        behind: None,
        break_it: serve_any,
        from: Side::Client,
        target: Lab::wsl_address(false),
        client: Seen::Connected,
        silence: SILENCE,
        manner: Manner::Listens,
        from_port: 0,
        witness: None,
        settle: None,
        tracers: 1,
        detail: Detail::Auto,
        alone: false,
        stall: None,
        note: "",
        mended: None,
        again: None,
        expect: Expect {
            origin: Origin::Remote,
            outcomes: &[Outcome::Answered],
            died: None,
            unconfirmed: None,
            reason: None,
            conntrack: None,
            codes: &[Code::Healthy],
            proved: false,
            inferred: false,
            translated: None,
            firewall: None,
            says: "",
            path: super::path::established(),
        },
    }
}

/// What may be said of a connection that its server never accepts: whether it was given a second for that depends on when the trace
/// ends.
const UNACCEPTED: &[Code] = &[Code::Healthy, Code::NotAccepted];

/// A server on every address of WSL of the client's family.
fn serve_any(lab: &mut Lab) -> Result<(), LabError> {
    serve_all(lab, Side::Wsl, PORT)
}

/// A server on every address of this side in the client's family.
fn serve_all(lab: &mut Lab, side: Side, port: u16) -> Result<(), LabError> {
    let any = lab.any();
    serve(lab, side, Binding::new(any, port))
}

/// A server that accepts, on this side; the other fault of a pair may have started one, which is then the one.
fn serve(lab: &mut Lab, side: Side, binding: Binding) -> Result<(), LabError> {
    let namespace = lab.side(side)?;
    if lab.kept::<Listening>().any(|server| server.accepts_at(namespace, binding)) {
        return Ok(());
    }
    let server = Listening::accepting(lab.side(side)?, binding)?;
    lab.keep(server);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_titles_one_line() {
        let all = super::all();
        assert_eq!(all.iter().map(|s| s.name).collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|s| !s.title.contains('\n') && s.title.len() < 100));
        assert!(all.len() >= 20);
        assert!(all.iter().all(|s| s.tracers > 0));
    }

    #[test]
    fn every_diagnosis_has_a_scenario() {
        let all = super::all();
        for code in crate::diagnosis::Code::ALL {
            assert!(all.iter().any(|scenario| scenario.expect.codes.contains(&code)), "{code}");
        }
    }

    #[test]
    fn a_death_lies_on_the_way() {
        for scenario in super::all() {
            for expect in [Some(&scenario.expect), scenario.again.as_ref()].into_iter().flatten() {
                // `netfilter_ingress` is a place of death only: a trace names it, and no probe reports it as entered.
                if let Some((stage, _)) = expect.died.filter(|(stage, _)| *stage != super::Stage::NetfilterIngress) {
                    assert!(expect.path.contains(&super::Step::Must(stage)), "{}: {stage}", scenario.name);
                }
            }
        }
    }
}
