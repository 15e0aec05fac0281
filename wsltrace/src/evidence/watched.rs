//! One namespace that is watched: what is kept of it between journeys.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::around::Around;
use super::backend::Firewalls;
use super::published::Container;
use super::readings::Readings;
use super::rules::{FirewallTrace, LegacyCounters, Twins, generation, inside};
use super::simulated::Rules;
use super::sockets::{self, Found};
use super::told::OrTold as _;
use super::unlistened::Idle;
use super::{Handed, OwnAddress, TableHolder, TcProgram};
use crate::journey::InterfaceName;
use crate::kernel::netns::Netns;
use crate::probe::{is_own_program, tc_programs};

/// How long an answer is kept at most that is dear to get and seldom changes.
pub(super) const REST_KEPT: Duration = Duration::from_secs(2);
/// For so many times of what it took to get an answer is it kept: of the time of many journeys each question takes 2 %, and a single
/// journey's is asked anew, since whoever looks for a fault changes something between two attempts.
const KEPT_FOR: u32 = 50;

/// An answer that is kept for a while.
pub(super) struct Kept<T>(Option<Answer<T>>);

struct Answer<T> {
    asked: Instant,
    took: Duration,
    value: T,
}

// Derived, it would ask the same of `T`.
impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Kept<T> {
    pub(super) fn get(&mut self, read: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        self.get_mut(read).map(|kept| &*kept)
    }

    /// The same, to keep more with it.
    pub(super) fn get_mut(&mut self, read: impl FnOnce() -> io::Result<T>) -> io::Result<&mut T> {
        self.unless(Answer::is_old, read)
    }

    /// An answer that was asked for not before this.
    pub(super) fn get_since(&mut self, after: Instant, read: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        self.unless(|answer| answer.asked < after, read).map(|kept| &*kept)
    }

    /// Forgets an answer that does not hold any more.
    fn forget_unless(&mut self, holds: impl FnOnce(&T) -> bool) {
        self.0.take_if(|answer| !holds(&answer.value));
    }

    /// Whether nothing is kept that would still be given.
    fn is_old(&self) -> bool {
        self.0.as_ref().is_none_or(Answer::is_old)
    }

    fn unless(&mut self, is_old: impl FnOnce(&Answer<T>) -> bool, read: impl FnOnce() -> io::Result<T>) -> io::Result<&mut T> {
        let answer = self.0.take().filter(|answer| !is_old(answer)).map_or_else(|| Answer::of(read), Ok)?;
        Ok(&mut self.0.insert(answer).value)
    }
}

impl<T> Answer<T> {
    fn of(read: impl FnOnce() -> io::Result<T>) -> io::Result<Self> {
        let asked = Instant::now();
        let value = read()?;
        Ok(Self { asked, took: asked.elapsed(), value })
    }

    fn is_old(&self) -> bool {
        self.asked.elapsed() >= kept_for(self.took)
    }
}

/// How long an answer is kept that took so long.
fn kept_for(took: Duration) -> Duration {
    (took * KEPT_FOR).min(REST_KEPT)
}

/// A namespace that is watched.
pub(super) struct Watched {
    pub(super) netns: Netns,
    pub(super) readings: Readings,
    /// How a command is run in it.
    pub(super) entrance: Kept<Option<String>>,
    pub(super) listeners: HashMap<u16, Kept<Vec<Found>>>,
    pub(super) firewalls: Kept<Firewalls>,
    /// Names of the programs that look for listeners.
    pub(super) lookup_programs: Kept<Vec<String>>,
    /// Names of the programs at netfilter.
    pub(super) netfilter_programs: Kept<Vec<String>>,
    /// Names of the programs that choose among sockets which share a port.
    pub(super) choosing_programs: Kept<Vec<String>>,
    /// Others' programs at tc, by device and whether it is for what comes in.
    pub(super) tc_programs: HashMap<(InterfaceName, bool), Kept<Vec<TcProgram>>>,
    /// Who has a tun device open, by its name.
    pub(super) handed: HashMap<InterfaceName, Kept<Option<Handed>>>,
    /// Sockets of TCP that are bound to a port and do not listen, and those of UDP, by the port.
    pub(super) unlistened: HashMap<u16, Kept<Idle>>,
    pub(super) addresses: Kept<Vec<OwnAddress>>,
    /// All listeners, of whatever port.
    pub(super) all_listeners: Kept<Vec<Found>>,
    pub(super) listener_settings: Kept<Vec<(String, String)>>,
    pub(super) refusal_settings: Kept<Vec<(String, String)>>,
    pub(super) conntrack_settings: Kept<Vec<(String, String)>>,
    /// The programs that tables belong to, by family and name of the table.
    pub(super) table_holders: HashMap<(String, String), Kept<Option<TableHolder>>>,
    /// The rules that give packets another destination; `None` where nothing lists them.
    pub(super) translating_rules: Kept<Option<Vec<String>>>,
    /// The containers of its Docker daemon.
    pub(super) published: Kept<Vec<Container>>,
    /// The hardware addresses here and behind it.
    pub(super) around: Kept<Option<Around>>,
    /// What the simulation follows, with the generation of nftables' rulesets from before it was read.
    rules: Kept<(Option<u32>, Rules)>,
    /// Which generation that is now.
    generation: Kept<Option<u32>>,
    pub(super) trace: Option<FirewallTrace>,
    pub(super) twins: Twins,
    /// Counters of the old iptables, IPv4 and IPv6.
    pub(super) legacy: [Option<LegacyCounters>; 2],
    /// That rules of both kinds are in use was said.
    pub(super) both_told: bool,
}

impl Watched {
    /// Nothing is known of it yet.
    pub(super) fn new(netns: &Netns) -> Self {
        Self {
            netns: netns.clone(),
            readings: Readings::default(),
            entrance: Kept::default(),
            listeners: HashMap::new(),
            firewalls: Kept::default(),
            lookup_programs: Kept::default(),
            netfilter_programs: Kept::default(),
            choosing_programs: Kept::default(),
            tc_programs: HashMap::new(),
            handed: HashMap::new(),
            unlistened: HashMap::new(),
            addresses: Kept::default(),
            all_listeners: Kept::default(),
            listener_settings: Kept::default(),
            refusal_settings: Kept::default(),
            conntrack_settings: Kept::default(),
            table_holders: HashMap::new(),
            translating_rules: Kept::default(),
            published: Kept::default(),
            around: Kept::default(),
            rules: Kept::default(),
            generation: Kept::default(),
            trace: None,
            twins: Twins::default(),
            legacy: [None, None],
            both_told: false,
        }
    }

    /// Others' programs at tc of a device; it is asked once for many journeys.
    pub(super) fn others_at_tc(&mut self, device: InterfaceName, ingress: bool) -> io::Result<Vec<TcProgram>> {
        let netns = &self.netns;
        let look = || {
            let query = || tc_programs(nix::net::if_::if_nametoindex(&*device)?, ingress);
            let all = netns.run(query).map_err(io::Error::other)??;
            let others = all.into_iter().filter(|(name, _)| !is_own_program(name));
            Ok(others.map(|(name, link)| TcProgram { name, link }).collect())
        };
        self.tc_programs.entry((device, ingress)).or_default().get(look).cloned()
    }

    /// The firewall rules as they are now. They are dear to read, and whether nftables' have changed meanwhile is not: of the old
    /// iptables' it cannot be asked.
    pub(super) fn rules(&mut self) -> Option<&mut Rules> {
        let (inum, netns) = (self.netns.inum(), &self.netns);
        let now = self.generation.get(|| inside(netns, generation)).or_told(inum, "ask whether the firewall rules have changed");
        let now = *now?;
        self.rules.forget_unless(|(then, _)| *then == now);
        let rules = self.rules.get_mut(|| Ok((now, Rules::read(netns)?))).or_told(inum, "read the firewall rules");
        rules.map(|(_, rules)| rules)
    }

    /// The listeners on a port, by a look that, where a time is given, is not older than that.
    pub(super) fn listeners(&mut self, port: u16, after: Option<Instant>) -> io::Result<Vec<Found>> {
        // Many ports may be traced.
        self.listeners.retain(|_, kept| !kept.is_old());
        let look = || sockets::listeners(&self.netns, port);
        let kept = self.listeners.entry(port).or_default();
        let found = match after {
            Some(after) => kept.get_since(after, look),
            None => kept.get(look),
        };
        found.cloned()
    }
}

/// The programs of a list that are not ours.
pub(super) fn others(programs: &[String]) -> Vec<String> {
    programs.iter().filter(|name| !is_own_program(name)).cloned().collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_the_longer_the_dearer_they_are() {
        assert_eq!(kept_for(Duration::from_micros(300)), Duration::from_millis(15));
        assert_eq!(kept_for(Duration::from_millis(40)), REST_KEPT);
        assert_eq!(kept_for(Duration::from_secs(9)), REST_KEPT);
    }

    #[test]
    fn an_answer_from_before_is_none() {
        let mut kept = Kept::default();
        let before = Instant::now();
        assert_eq!(*kept.get_since(before, || Ok(1)).unwrap(), 1);
        assert_eq!(*kept.get_since(before, || Ok(2)).unwrap(), 1);
        assert_eq!(*kept.get_since(Instant::now(), || Ok(3)).unwrap(), 3);
        kept.forget_unless(|answer| *answer == 3);
        assert_eq!(*kept.get(|| Ok(4)).unwrap(), 3);
        kept.forget_unless(|answer| *answer != 3);
        assert_eq!(*kept.get(|| Ok(5)).unwrap(), 5);
        // One that failed leaves nothing.
        let after = Instant::now();
        kept.get_since(after, || Err(io::ErrorKind::TimedOut.into())).unwrap_err();
        assert_eq!(*kept.get_since(before, || Ok(4)).unwrap(), 4);
    }
}
