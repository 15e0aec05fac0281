//! `wsltrace doctor`: one port examined before any packet comes. Facts are gathered once, by whoever else needs them too; what is
//! said of them are pure functions, a file for each subject and a row for each check.

pub mod checks;
mod examination;
mod finding;
mod firewall;
mod gather;
mod inside;
mod led;
mod linux;
mod neighbours;
mod proxy;
mod redact;
mod several;
mod uncertain;
mod unserved;

pub(crate) use checks::CHECKS;
pub use examination::{Examination, ExaminationTag, schema};
pub use finding::{Finding, Line, Severity, Shell};
pub use firewall::Firewalls;
pub use gather::{firewalls as look_at_firewalls, linux as look_at_linux};
pub use linux::{Address, Interface, Linux, Managers, Names, Unseen};
pub use redact::Redactor;
pub use unserved::{End, Inside};

use std::cell::RefCell;

use crate::evidence::Listener;
use crate::kernel::check::Problem;
use crate::kernel::programs::Programs;
use crate::windows::Windows;
use crate::wsl::{Entry, Gate, NetworkingMode, Outside, Proxied, Row, Setting, Source, Way, Wsl, ways};

/// Everything that is known when a port is judged. Plain data: no check asks the system for more.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The port of the server.
    pub port: u16,
    /// What Linux says.
    pub linux: Linux,
    /// The rulesets of this Linux.
    pub firewalls: Firewalls,
    /// What keeps the tracer from running here, whoever starts it, each with what to do about it.
    pub untraceable: Vec<Problem>,
    /// What remedies would be typed with and is not here.
    pub programs: Programs,
    /// What is known of WSL from Linux' side.
    pub wsl: WslFacts,
    /// What Windows says.
    pub windows: Windows,
}

/// What is known of WSL from Linux' side.
#[derive(Clone, Debug, PartialEq)]
pub struct WslFacts {
    /// Which WSL this is, if any.
    pub wsl: Wsl,
    /// Its version, such as `2.6.1`.
    pub version: Option<String>,
    /// The networking mode, and who says so.
    pub mode: Option<(NetworkingMode, Source)>,
    /// The text of `/etc/wsl.conf`, when there is one.
    pub conf: Option<String>,
}

impl Default for WslFacts {
    fn default() -> Self {
        Self { wsl: Wsl::No, version: None, mode: None, conf: None }
    }
}

/// Judges the facts by every check; the worst first, otherwise in the checks' order.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let named = |check: &checks::Check| {
        let name = check.name;
        (check.judge)(facts)
            .into_iter()
            .map(move |finding| Finding { check: name.to_owned(), ..finding.typed_with(&facts.programs) })
    };
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(named).collect();
    if findings.iter().all(|finding| finding.severity != Severity::Fails) {
        findings.extend(checks::untold(facts).into_iter().map(|finding| finding.typed_with(&facts.programs)));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

impl Facts {
    /// The networking mode, when known.
    pub fn mode(&self) -> Option<NetworkingMode> {
        self.wsl.mode.map(|(mode, _)| mode)
    }

    /// The table of the ways in.
    pub fn rows(&self) -> Vec<Row> {
        self.rows_through(checks::outside(self), &|entry| self.gate(entry))
    }

    /// What becomes of a SYN before any socket is looked for.
    fn gate(&self, entry: &Entry) -> Gate {
        if entry.interface == "loopback0"
            && let Some(why) = checks::stopped_at_loopback0(self)
        {
            return Gate::Shut(why);
        }
        let interface = self.linux.interface(&entry.interface);
        if interface.is_some_and(|interface| !interface.up) {
            return Gate::Shut(format!("{} is down", entry.interface));
        }
        if interface.is_some_and(|interface| interface.no_carrier) {
            return Gate::Shut(format!("{} has no carrier: nothing is at its other end", entry.interface));
        }
        if entry.local && self.linux.loopback_gone.contains(&entry.destination) {
            let gone = format!("lo has no address {} any longer", entry.destination);
            // It leaves by a default route then, and rules may lead it elsewhere.
            return if self.is_led(entry) { Gate::Unknown(gone) } else { Gate::Shut(gone) };
        }
        if let Some((own, by)) = self.linux.loopback_strayed.iter().find(|(own, _)| entry.local && entry.destination == *own) {
            let to = by.as_ref().map_or_else(|| "nowhere".to_owned(), |by| format!("out by {by}"));
            let strayed = format!("a rule of `ip rule` leads packets to {own} {to}, before the table of own addresses is asked");
            return if self.is_led(entry) { Gate::Unknown(strayed) } else { Gate::Shut(strayed) };
        }
        if interface.is_some_and(Interface::is_filtered) {
            return Gate::Unknown(format!("a program, filter or queue at {} may stop it", entry.interface));
        }
        // The rules between routing tables are part of such a set-up.
        if let Some(proxy) = self.proxy(entry) {
            return proxy;
        }
        let is_outer = self.linux.outer.as_ref().is_some_and(|(own, _)| *own == entry.destination);
        let is_usual = self.own_routing(entry.destination).is_none();
        if let Some((_, by, true)) = self.linux.refused_client(entry.source).filter(|_| is_outer && is_usual && !entry.local) {
            return Gate::Shut(format!("rp_filter of {} is strict, and answers leave by {by}", entry.interface));
        }
        if self.linux.is_conntrack_full() {
            return Gate::Shut("the table of connection tracking is full".to_owned());
        }
        self.beyond_doubt(entry)
    }

    /// The SYNs of the table.
    fn entries(&self) -> Vec<Entry> {
        let seen = RefCell::new(Vec::new());
        self.rows_through(Outside::default(), &|entry| {
            seen.borrow_mut().push(entry.clone());
            Gate::Open
        });
        seen.into_inner()
    }

    /// The same as if neither Windows nor a firewall stopped anything: what the sockets alone decide.
    pub fn rows_of_sockets(&self) -> Vec<Row> {
        self.rows_through(Outside::default(), &|_| Gate::Open)
    }

    /// What becomes of a connection that a portproxy entry makes.
    fn through_portproxy(&self, to: &Proxied) -> Row {
        self.setting(checks::outside(self), &|listener| self.unserved(listener), &|entry| self.gate(entry))
            .by_portproxy(Way::LanToWindows, to)
    }

    fn rows_through(&self, outside: Outside, gate: &dyn Fn(&Entry) -> Gate) -> Vec<Row> {
        ways(&self.setting(outside, &|listener| self.unserved(listener), gate))
    }

    fn setting<'a>(
        &'a self,
        outside: Outside,
        unserved: &'a dyn Fn(&Listener) -> Option<String>,
        gate: &'a dyn Fn(&Entry) -> Gate,
    ) -> Setting<'a> {
        Setting {
            wsl: self.wsl.wsl,
            mode: self.mode(),
            port: self.port,
            listeners: &self.linux.listeners,
            address: self.linux.outer.clone(),
            address6: self.linux.outer6.clone(),
            around: self.goes_around(),
            gateway: self.linux.gateway.as_ref().map(|(gateway, _)| *gateway),
            bridge: self.linux.bridge.clone(),
            outside,
            unserved,
            gate,
        }
    }

    /// Whether connections to 127.0.0.1 go out to Windows and come back; without their routes they stay here.
    fn goes_around(&self) -> bool {
        let mode = matches!(self.mode(), Some(NetworkingMode::Mirrored | NetworkingMode::Consomme));
        mode && self.linux.loopback_rules != Some(false) && self.linux.interface("loopback0").is_some()
    }

    /// Whether anything at all may come from Windows.
    fn can_be_reached(&self) -> bool {
        self.mode().is_some_and(|mode| mode != NetworkingMode::None)
    }
}
