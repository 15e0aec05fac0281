//! What surrounds the traced server, looked up while the probes are loaded: WSL's networking mode (`wslinfo` asks Windows,
//! which may take seconds), who listens, and by which address others come.

use std::io;
use std::net::IpAddr;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::cli::TraceArgs;
use crate::doctor::{Facts, Finding, Severity, WslFacts, diagnose, look_at_firewalls, look_at_linux};
use crate::evidence::rules::published_as;
use crate::evidence::{Listener, sockets};
use crate::kernel::addresses::{list_addresses, outer};
use crate::kernel::check;
use crate::kernel::links::Link;
use crate::kernel::netns::Netns;
use crate::kernel::programs::Programs;
use crate::output::Start;
use crate::recording::Machine;
use crate::windows::Windows;
use crate::wsl::{self, NetworkingMode, Place, Wsl};

/// Longest time that the search for the owners of sockets may take.
const OWNERS_LIMIT: Duration = Duration::from_secs(1);

/// Checks of the doctor whose findings can be why no SYN comes at all into WSL: Windows looks at the listeners before it sends one. A
/// rule or a setting is not among them: the SYN comes, and dies.
const HIDES: [&str; 7] = ["listener", "listener_address", "mode", "neighbours", "published", "tunnel", "xdp"];
/// Those of them that are not about WSL: a client that cannot find this machine sends no SYN anywhere, and what a tunnel refuses or an XDP
/// program takes nobody sees.
const HIDES_ANYWHERE: [&str; 3] = ["neighbours", "tunnel", "xdp"];
/// The same where only a rule leads to the port, from another one: clients ask for that.
const HIDES_OF_PUBLISHED: [&str; 4] = ["listener", "neighbours", "tunnel", "xdp"];

/// What was found.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) mode: Option<(NetworkingMode, wsl::Source)>,
    /// WSL's version, for a recording.
    version: Option<String>,
    listeners: Vec<Listener>,
    address: Option<IpAddr>,
}

/// A look around that goes on in a thread until somebody asks for what it found.
pub(super) struct Surroundings {
    looking: Option<JoinHandle<Seen>>,
    seen: Seen,
    /// Which WSL the traced namespace is the network of.
    wsl: Wsl,
}

impl Surroundings {
    /// Begins to look around in a namespace with these interfaces; listeners are for people, JSON does without.
    pub(super) fn look(args: &TraceArgs, netns: &Netns, links: &[Link], wsl: Wsl) -> io::Result<Self> {
        let is_kept = args.record.is_some() || !args.exports.is_empty();
        let with_listeners = !args.json && !args.quiet || is_kept;
        let (traced, links) = (netns.clone(), links.to_vec());
        let look = move || {
            let mode = wsl::networking_mode(wsl, &links);
            let version = if is_kept { wsl::version(wsl) } else { None };
            if !with_listeners {
                return Seen { mode, version, ..Seen::default() };
            }
            let listeners = sockets::all_listeners(&traced).unwrap_or_else(|error| {
                log::warn!("cannot list the listeners of the network namespace {}: {error}", traced.label());
                Vec::new()
            });
            let addresses = list_addresses(&traced).unwrap_or_else(|error| {
                log::warn!("cannot list the addresses of the network namespace {}: {error}", traced.label());
                Vec::new()
            });
            let address = outer(&addresses, &links).map(|outer| outer.address);
            Seen { mode, version, listeners: sockets::with_owners(listeners, OWNERS_LIMIT), address }
        };
        let looking = Builder::new().name("surroundings".to_owned()).spawn(look)?;
        let is_own = Netns::current().is_ok_and(|own| own == *netns);
        Ok(Self { looking: Some(looking), seen: Seen::default(), wsl: if is_own { wsl } else { Wsl::No } })
    }

    /// What was found; waits for it.
    pub(super) fn seen(&mut self) -> &Seen {
        if let Some(looking) = self.looking.take() {
            self.seen = looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        &self.seen
    }

    /// The machine, for a recording.
    pub(super) fn machine(&self, release: &str) -> Machine {
        // The mode is asked for only where somebody waits for it.
        let seen = &self.seen;
        Machine {
            kernel: release.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            wsl: seen.version.clone(),
            mode: seen.mode.map(|(mode, _)| mode.name().to_owned()),
        }
    }

    /// What an examination of the port finds wrong now that may be why no SYN comes, the worst first.
    pub(super) fn examine(&mut self, netns: &Netns, port: u16, machine: &check::Machine) -> Vec<Finding> {
        let listens = self.seen().listeners.iter().any(|listener| listener.port == port);
        let published = || {
            let ports = published_as(netns, port).unwrap_or_else(|error| {
                log::debug!("cannot tell what leads to port {port}: {error}");
                Vec::new()
            });
            !ports.is_empty()
        };
        if self.wsl != Wsl::Two && !listens && !published() {
            // Whoever looks for a server that is not there has another trouble.
            return Vec::new();
        }
        // Windows is not asked: that takes seconds.
        let wsl = WslFacts { wsl: self.wsl, mode: self.seen().mode, ..WslFacts::default() };
        let firewalls = look_at_firewalls(netns);
        let facts = Facts {
            port,
            linux: look_at_linux(netns, port, machine, &firewalls),
            firewalls,
            wsl,
            untraceable: Vec::new(),
            programs: Programs::look().within(netns),
            windows: Windows::NotAsked,
        };
        let wrong = |finding: &Finding| matches!(finding.severity, Severity::Fails | Severity::Warns);
        // The rest is about WSL.
        let hides: &[&str] = match (self.wsl, listens) {
            (Wsl::Two, _) => &HIDES,
            (_, true) => &HIDES_ANYWHERE,
            (_, false) => &HIDES_OF_PUBLISHED,
        };
        let can_be_it = |finding: &Finding| hides.contains(&finding.check.as_str());
        diagnose(&facts).into_iter().filter(|finding| wrong(finding) && can_be_it(finding)).collect()
    }

    /// What to tell at the start.
    pub(super) fn start(&mut self, args: &TraceArgs, containers: bool) -> Start {
        let wsl = self.wsl;
        let seen = self.seen();
        let is_traced = |port: u16| args.ports.iter().any(|range| (range.first..=range.last).contains(&port));
        // Of a range, the first port that has a listener is the one to try.
        let listening = seen.listeners.iter().map(|listener| listener.port).find(|port| is_traced(*port));
        let port = listening.or(args.ports.first().map(|range| range.first)).unwrap_or(0);
        let on_it: Vec<Listener> = seen.listeners.iter().filter(|listener| listener.port == port).cloned().collect();
        let place = Place { wsl, mode: seen.mode.map(|(mode, _)| mode), address: seen.address, listeners: &on_it, containers };
        Start { listeners: seen.listeners.clone(), containers, invitation: wsl::invitation(place, port) }
    }
}
