//! The tracer beside the load: follows every handshake that the paths' clients make, while they are measured, and adds up by path where
//! the time went. It has the probes of `wsltrace --port`, and none of what explains a failure.
//!
//! Paths are measured one after the other, so a journey belongs to the path that was being measured when its SYN was first seen.

pub mod legs;
pub mod parts;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wsltrace_common::Counter;

use self::legs::Legs;
use crate::cli::{PortRange, bitmap};
use crate::evidence::namespaces_behind;
use crate::journey::{assemble, decode, is_for_another};
use crate::kernel::links::list_links;
use crate::kernel::names::{MachineNames, now_ns};
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::{self, KernelFacts, check};
use crate::probe::{CounterReader, Detail, Loader, Missing, ProbeError, Probes, Role, Sizes, Swept, most_descriptors};
use crate::sweep::{IsOver, sweep, sweep_until_empty};
use crate::wsl::Wsl;

/// How often what has ended is looked for: the kernel side wakes the reader only for many records.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why the handshakes cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The machine lacks something.
    #[error("{0}")]
    Cannot(String),
    /// The probes.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's own description could not be read.
    #[error("cannot read what the kernel says of itself")]
    Facts(#[from] kernel::btf::BtfError),
    /// Something else.
    #[error("cannot trace")]
    Io(#[from] io::Error),
}

/// All that is needed to trace, again and again.
pub struct Tracing {
    facts: Arc<KernelFacts>,
    netns: Netns,
    ports: Vec<u16>,
    wsl: Wsl,
}

impl Tracing {
    /// Prepares to trace connections to these ports in a network namespace; says what is missing, and why, where that is not possible.
    pub fn prepare(netns: Netns, ports: &[u16]) -> Result<Self, TraceError> {
        let machine = check::Machine::read()?;
        let problems = check::problems(&machine, "wsltrace bench");
        if !problems.is_empty() {
            let said: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            return Err(TraceError::Cannot(said.join("; ")));
        }
        Ok(Self { facts: Arc::new(kernel::read()?), netns, ports: ports.to_vec(), wsl: machine.wsl })
    }

    /// The ports to which connections are traced.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The most files that are open beside those that are open now, while it traces.
    pub fn descriptors(&self) -> Result<u64, TraceError> {
        let namespaces: Vec<Netns> = self.namespaces()?.collect();
        let mut interfaces = 0;
        for netns in &namespaces {
            interfaces += list_links(netns)?.len();
        }
        Ok(u64::try_from(most_descriptors(namespaces.len(), interfaces)).unwrap_or(u64::MAX))
    }

    /// The namespaces to look at: its own, and those behind it.
    fn namespaces(&self) -> Result<impl Iterator<Item = Netns>, TraceError> {
        let followed = namespaces_behind(&self.netns)?.joined.into_iter().map(|joined| joined.netns);
        Ok(std::iter::once(self.netns.clone()).chain(followed))
    }

    /// Puts the probes in and begins to trace, for so many paths.
    pub fn start(&self, paths: usize) -> Result<Tracer, TraceError> {
        let ranges: Vec<PortRange> = self.ports.iter().map(|port| PortRange { first: *port, last: *port }).collect();
        let ports = bitmap(&ranges);
        let mut probes = Probes::load(Loader::begin(), &self.facts, &ports, Detail::default(), Sizes::default(), 0)?;
        let records = probes.take_records()?;
        let mut names = MachineNames::new(self.facts.clone(), self.wsl == Wsl::Two);
        let mut attached: Vec<Netns> = Vec::new();
        for netns in self.namespaces()? {
            if attached.contains(&netns) {
                continue;
            }
            let links = list_links(&netns)?;
            names.learn(netns.inum(), &links);
            probes.attach_namespace(&netns, if attached.is_empty() { Role::Traced } else { Role::Followed })?;
            let up: Vec<_> = links.into_iter().filter(|link| link.up).collect();
            probes.attach_interfaces(&netns, &up)?;
            attached.push(netns);
        }
        let sent_again = probes.count_sent_again(&self.facts)?.map(|counter| SentAgain::new(counter, paths));
        probes.switch(true)?;
        let missing = probes.missing().to_vec();
        let turns = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = nix::unistd::pipe().map_err(io::Error::from)?;
        let mut reader = Reader {
            probes,
            records,
            names,
            turns: turns.clone(),
            traced: Traced { paths: vec![Legs::default(); paths], sent_again: None, lost: 0, missing },
            ended: 0,
        };
        let thread = std::thread::Builder::new().name("tracer".to_owned()).spawn(move || {
            reader.read_until(&stop)?;
            reader.finish()
        })?;
        Ok(Tracer { turns, sent_again, stop: stopped, thread })
    }
}

/// When which path began to be measured: nanoseconds of `CLOCK_MONOTONIC`, and the path's index.
type Turns = Arc<Mutex<Vec<(u64, usize)>>>;

/// A tracer at work.
pub struct Tracer {
    turns: Turns,
    sent_again: Option<SentAgain>,
    /// Closed to end it.
    stop: OwnedFd,
    thread: JoinHandle<Result<Traced, TraceError>>,
}

/// What was traced.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// By path.
    pub paths: Vec<Legs>,
    /// By path, how many segments the servers' side sent again; nothing where that cannot be counted.
    pub sent_again: Option<Vec<u64>>,
    /// Records lost: so many handshakes may be missing.
    pub lost: u64,
    /// Probes that were not on, and what that costs.
    pub missing: Vec<Missing>,
}

impl Tracer {
    /// From now on this path is measured.
    pub fn turn(&mut self, path: usize) -> Result<(), TraceError> {
        if let Some(sent_again) = &mut self.sent_again {
            sent_again.turn(Some(path))?;
        }
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).push((now_ns(), path));
        Ok(())
    }

    /// Takes the probes out, and gives what they saw.
    pub fn stop(mut self) -> Result<Traced, TraceError> {
        if let Some(sent_again) = &mut self.sent_again {
            sent_again.turn(None)?;
        }
        drop(self.stop);
        let traced = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Traced { sent_again: self.sent_again.map(|counted| counted.paths), ..traced })
    }
}

/// How many segments the servers' side sent again, by the path that was being measured.
struct SentAgain {
    counter: CounterReader,
    paths: Vec<u64>,
    /// The path that is measured now, and what the counter was when that began.
    turn: Option<(usize, u64)>,
}

impl SentAgain {
    fn new(counter: CounterReader, paths: usize) -> Self {
        Self { counter, paths: vec![0; paths], turn: None }
    }

    /// Ends the turn of one path, and begins that of another.
    fn turn(&mut self, next: Option<usize>) -> Result<(), ProbeError> {
        let now = self.counter.read()?;
        if let Some((path, before)) = self.turn
            && let Some(sum) = self.paths.get_mut(path)
        {
            *sum += now.saturating_sub(before);
        }
        self.turn = next.map(|path| (path, now));
        Ok(())
    }
}

/// The thread that reads what the probes see.
struct Reader {
    probes: Probes,
    records: RingBuf<MapData>,
    names: MachineNames,
    turns: Turns,
    traced: Traced,
    /// Journeys that came out of the ring buffer.
    ended: u64,
}

impl Reader {
    /// Reads until the other end of `stop` is closed.
    fn read_until(&mut self, stop: &OwnedFd) -> Result<(), TraceError> {
        let mut next = Instant::now() + LOOK_EVERY;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let mut watched =
                [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(self.records.as_fd(), PollFlags::POLLIN)];
            poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)).map_err(io::Error::from)?;
            if watched.first().and_then(PollFd::any) == Some(true) {
                return Ok(());
            }
            self.read();
            if Instant::now() >= next {
                self.probes.refresh_positions()?;
                if self.probes.counter(Counter::Begun)? != self.ended {
                    sweep(false, |is_over| self.sweep(is_over))?;
                }
                next = Instant::now() + LOOK_EVERY;
            }
        }
    }

    /// Ends every open journey.
    fn finish(mut self) -> Result<Traced, TraceError> {
        self.probes.switch(false)?;
        sweep_until_empty(|is_over| self.sweep(is_over))?;
        for counter in [Counter::TableFull, Counter::StagesFull, Counter::KeysFull] {
            self.traced.lost += self.probes.counter(counter)?;
        }
        Ok(self.traced)
    }

    fn read(&mut self) {
        while let Some(item) = self.records.next() {
            self.ended += 1;
            if is_for_another(&item) {
                continue;
            }
            let record = match decode(&item) {
                Ok(record) => record,
                Err(error) => {
                    log::error!("{error}");
                    continue;
                }
            };
            let path = at(&self.turns.lock().unwrap_or_else(PoisonError::into_inner), record.first_ns);
            if let Some(legs) = path.and_then(|path| self.traced.paths.get_mut(path)) {
                legs.add(&assemble(&record, self.ended, &self.names));
            }
        }
    }

    /// Looks at some more of the table of journeys, and reads what was ended by it.
    fn sweep(&mut self, is_over: IsOver<'_>) -> Result<Swept, ProbeError> {
        let swept = self.probes.sweep(is_over)?;
        self.read();
        Ok(swept)
    }
}

/// Which path was being measured at a time; none before the first.
fn at(turns: &[(u64, usize)], ns: u64) -> Option<usize> {
    turns.iter().rev().find(|(began, _)| *began <= ns).map(|(_, path)| *path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_belongs_to_the_path_whose_turn_it_was() {
        let turns = [(10, 4), (20, 0), (30, 4)];
        assert_eq!([5, 10, 19, 25, 1000].map(|ns| at(&turns, ns)), [None, Some(4), Some(4), Some(0), Some(4)]);
    }
}
