//! Which rule did it: the kernel's own trace of the packets in question (`meta nftrace`), and the rulesets that give the named
//! rules their texts. No ruleset is simulated here: a rule is named only when the kernel said that it decided about this
//! very packet.

pub(crate) mod event;
mod followed;
mod held;
pub(crate) mod legacy;
mod listing;
mod log;
mod marking;
mod named;
mod old_tables;
mod owner;
mod pace;
mod plain;
mod questions;
mod socket;
mod targets;
mod twins;

use std::io;
use std::process::Command;

pub(crate) use self::event::family_name;
use self::followed::Followed;
pub use self::held::TableHolder;
pub(crate) use self::held::held_tables;
pub(super) use self::held::table_holder;
pub(super) use self::legacy::{Came, LegacyCounters};
pub(crate) use self::listing::Listing;
use self::log::TraceLog;
use self::marking::Marking;
pub(crate) use self::marking::PREFIX as OWN_PREFIX;
pub(super) use self::named::Named;
pub(crate) use self::named::told;
pub(crate) use self::old_tables::{arp_tables, tables as legacy_tables};
pub(crate) use self::owner::backend as owner_backend;
use self::pace::Pace;
pub(super) use self::plain::Ends;
pub(crate) use self::questions::{generation, message, present, text_of, user_comment};
use self::socket::Listener;
pub(crate) use self::socket::OwnTable;
pub use self::targets::dnat_targets;
use self::targets::translated_port;
pub(crate) use self::targets::{leads_on, one_sends_to, published_as, sends_elsewhere, translating_rules};
pub(super) use self::twins::Twins;
use crate::kernel::command::{LISTING_LIMIT, output_within};
use crate::kernel::netns::Netns;

/// Which packets are to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The traced ports; `None` in a container's namespace, where DNAT may lead to any.
    pub ports: Option<Vec<(u16, u16)>>,
    /// The interfaces.
    pub devices: Vec<String>,
}

/// The trace of one namespace's firewalls.
#[derive(Debug)]
pub(super) struct FirewallTrace {
    netns: Netns,
    scope: Scope,
    table: Option<(Marking, OwnTable)>,
    listener: Option<Listener>,
    log: TraceLog,
    /// Connections that do not get on.
    followed: Option<Followed>,
    pace: Pace,
    generation: Option<u32>,
    listing: Option<Listing>,
    /// The ruleset before it was changed last: what killed a packet may be gone by the time that its name is asked for.
    previous: Option<Listing>,
}

impl FirewallTrace {
    /// Begins to trace. Without nftables in the kernel, or without any table, there is nothing to trace yet, and nothing is
    /// put in anybody's way.
    pub(super) fn start(netns: &Netns, scope: Scope) -> io::Result<Self> {
        let mut trace = Self {
            netns: netns.clone(),
            scope,
            table: None,
            listener: None,
            log: TraceLog::default(),
            followed: None,
            pace: Pace::default(),
            generation: None,
            listing: None,
            previous: None,
        };
        trace.refresh()?;
        Ok(trace)
    }

    /// Counts the ruleset's changes, as of the last look.
    pub(super) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Whether somebody has rules in nftables.
    pub(super) fn has_rules(&self) -> bool {
        self.listing.as_ref().is_some_and(|listing| listing.texts().next().is_some())
    }

    /// How many rules of nftables there are.
    pub(super) fn rules(&self) -> usize {
        self.listing.as_ref().map_or(0, |listing| listing.texts().count())
    }

    /// Traces these from now on.
    pub(super) fn set_scope(&mut self, scope: Scope) -> io::Result<()> {
        if self.scope == scope {
            return Ok(());
        }
        self.scope = scope;
        self.generation = None;
        self.refresh()
    }

    /// Looks whether the ruleset changed, and takes in what the kernel said.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.drain()?;
        if self.pace.tick() {
            self.generation = None;
        }
        self.refresh()
    }

    fn drain(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let (log, mut messages) = (&mut self.log, 0);
        listener.drain(|event| {
            messages += 1;
            if !event.rule.table.starts_with(OWN_PREFIX) {
                log.add(event);
            }
        })?;
        if self.pace.hear(messages) {
            self.table = None;
        }
        Ok(())
    }

    fn refresh(&mut self) -> io::Result<()> {
        let generation = inside(&self.netns, generation)?;
        if generation.is_some() && generation == self.generation {
            return Ok(());
        }
        self.previous = self.listing.take().or_else(|| self.previous.take());
        let present = inside(&self.netns, present)?;
        if present.tables {
            self.read_listing();
            self.mark(present.devices)?;
        } else {
            self.table = None;
        }
        // Our own table counts as a change.
        self.generation = inside(&self.netns, self::generation)?;
        Ok(())
    }

    fn read_listing(&mut self) {
        // Without the program a rule is still named by table, chain and handle.
        self.listing = list(&self.netns).inspect_err(|error| ::log::debug!("nft list ruleset: {error}")).ok();
    }

    fn mark(&mut self, devices: bool) -> io::Result<()> {
        if self.pace.is_resting() {
            return Ok(());
        }
        let all = vec![(0, u16::MAX)];
        let mut marking = Marking {
            table: format!("{OWN_PREFIX}{}", std::process::id()),
            ports: self.scope.ports.clone().unwrap_or_else(|| all.clone()),
            answers: if self.scope.ports.is_some() { self.targets() } else { Vec::new() },
            devices: if devices { self.scope.devices.clone() } else { Vec::new() },
            outgoing: self.listing.as_ref().is_none_or(|listing| listing.hooks().any(is_outgoing)),
            limited: self.pace.is_kept_by_kernel(),
        };
        if self.table.as_ref().is_some_and(|(made, _)| *made == marking) {
            return Ok(());
        }
        // Two tables of one name cannot be.
        self.table = None;
        if self.listener.is_none() {
            self.listener = Some(inside(&self.netns, Listener::open)?);
        }
        let made = match inside(&self.netns, || OwnTable::make(marking.messages())) {
            Err(error) if marking.limited && error.raw_os_error() == Some(libc::ENOENT) => {
                ::log::debug!("the kernel has no limit for nftables: the rate of its trace is kept by hand");
                self.pace.keep_by_hand();
                marking.limited = false;
                inside(&self.netns, || OwnTable::make(marking.messages()))
            }
            made => made,
        };
        self.table = Some((marking, made?));
        Ok(())
    }

    /// Ports that DNAT leads to: answers come from there.
    fn targets(&self) -> Vec<(u16, u16)> {
        let texts = self.listing.iter().flat_map(Listing::texts);
        let mut ports: Vec<u16> = texts.filter_map(translated_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().map(|port| (port, port)).collect()
    }
}

/// What nft prints of a namespace.
pub(crate) fn list(netns: &Netns) -> io::Result<Listing> {
    let text = inside(netns, || output_within(LISTING_LIMIT, Command::new("nft").args(["-a", "-s", "-y", "list", "ruleset"])))?;
    Ok(Listing::parse(&text))
}

pub(crate) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    netns.run(work).map_err(io::Error::other)?
}

/// Whether a chain at this hook sees what this machine sends.
fn is_outgoing(hook: &str) -> bool {
    matches!(hook, "output" | "postrouting" | "egress")
}
