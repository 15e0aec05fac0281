//! Everything that is on while tracing goes on: made, and kept up as interfaces and containers come.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use aya::maps::{MapData, RingBuf};
use tokio::sync::oneshot;

use super::following::Followed;
use super::surroundings::Surroundings;
use crate::causes::with_causes;
use crate::cli::{TraceArgs, bitmap};
use crate::command::Failure;
use crate::command::keeper::Keeper;
use crate::command::queue::{Sender, queue};
use crate::command::reporter::{Job, Output, Reported, Reporter, is_wanted};
use crate::command::stalled::Stalled;
use crate::command::unaccepted::Unaccepted;
use crate::escape::shell_word;
use crate::evidence::{Gatherer, Scope};
use crate::kernel::links::{Link, LinkEvent, LinkWatcher, list_links};
use crate::kernel::names::{MachineNames, now_ns};
use crate::kernel::netns::Netns;
use crate::kernel::{self, KernelFacts, check};
use crate::output::{JsonOutput, Shown, TextOptions, TextOutput, Verbosity};
use crate::probe::{Loader, ProbeError, Probes, Role, Sizes};
use crate::wsl::Wsl;

/// How many jobs may wait for the reporter.
const QUEUE: usize = 2048;

/// Everything that is on while tracing goes on.
pub(super) struct Session {
    pub(super) probes: Probes,
    pub(super) records: AsyncRecords,
    pub(super) netns: Netns,
    pub(super) links: Vec<Link>,
    pub(super) watcher: LinkWatcher,
    /// News of interfaces behind them: in containers.
    pub(super) watcher_behind: LinkWatcher,
    /// Namespaces of containers that packets are followed into.
    pub(super) followed: Vec<Followed>,
    pub(super) jobs: Sender<Job>,
    pub(super) reporter: JoinHandle<Reported>,
    /// Resolves when the reporter has ended by itself.
    pub(super) reporter_gone: oneshot::Receiver<()>,
    pub(super) surroundings: Surroundings,
    /// The machine that is traced.
    pub(super) machine: check::Machine,
    pub(super) began_ns: u64,
    pub(super) interfaces: Vec<String>,
    /// Journeys passed on to the reporter.
    pub(super) seen: u64,
    /// Journeys of clients that are not wanted.
    pub(super) hidden: u64,
    /// Journeys that came out of the ring buffer.
    pub(super) ended: u64,
    /// Records wait in the ring buffer for room in the queue.
    pub(super) held_back: bool,
    /// Nothing more comes: what there is is taken, room or not.
    pub(super) ending: bool,
    /// Events that the kernel left out so far.
    pub(super) missed_events: u64,
    /// The traced ports, when the rules that packets meet are to be named.
    pub(super) named_ports: Option<Vec<(u16, u16)>>,
}

type AsyncRecords = RingBuf<MapData>;

impl Session {
    pub(super) fn start(args: &TraceArgs, netns: Netns, machine: &check::Machine) -> Result<Self, Failure> {
        let wsl = machine.wsl;
        let loader = Loader::begin();
        // Watch before listing, so that no interface falls between.
        let watcher = LinkWatcher::new(&netns)?;
        let watcher_behind = LinkWatcher::with_others(&netns)?;
        let links = list_links(&netns)?;
        for name in &args.interfaces {
            if !links.iter().any(|link| link.name == *name) {
                let names = links.iter().map(|link| link.name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(
                    format!("there is no interface {}", shell_word(name)),
                    format!("the interfaces here are: {names}"),
                ));
            }
        }
        let keeper = Keeper::prepare(args)?;
        let surroundings = Surroundings::look(args, &netns, &links, wsl)?;
        let facts = Arc::new(kernel::read()?);
        let sizes = Sizes { journeys: args.table_entries, ring_bytes: args.ring_pages.map(|pages| pages * 4096) };
        let log_level = if args.verbose { 4 } else { 0 };
        let mut probes = Probes::load(loader, &facts, &bitmap(&args.ports), args.detail, sizes, log_level)?;
        let records = probes.take_records()?;
        let (jobs, reporter, reporter_gone) = start_reporter(args, &netns, facts, wsl, keeper)?;
        let mut session = Self {
            probes,
            records,
            netns,
            links: Vec::new(),
            watcher,
            watcher_behind,
            followed: Vec::new(),
            jobs,
            reporter,
            reporter_gone,
            surroundings,
            machine: machine.clone(),
            began_ns: now_ns(),
            interfaces: args.interfaces.clone(),
            seen: 0,
            hidden: 0,
            ended: 0,
            held_back: false,
            ending: false,
            missed_events: 0,
            named_ports: (!args.no_firewall_trace).then(|| args.ports.iter().map(|range| (range.first, range.last)).collect()),
        };
        session.send(Job::Watch(session.netns.clone()));
        session.probes.attach_namespace(&session.netns, Role::Traced)?;
        session.attach(links)?;
        session.follow_containers()?;
        Ok(session)
    }

    /// Sends a job. When the reporter is gone, the loop hears of it by `reporter_gone`.
    pub(super) fn send(&self, job: Job) {
        if !self.jobs.send(job) {
            log::debug!("the reporter has ended");
        }
    }

    /// Attaches to interfaces that are up and wanted, and that are not attached to yet; the error is the
    /// first one's, when the others are attached to.
    fn attach(&mut self, links: Vec<Link>) -> Result<(), ProbeError> {
        self.send(Job::Links(self.netns.inum(), links.clone()));
        let new: Vec<Link> = links
            .into_iter()
            .filter(|link| link.up && is_wanted(&self.interfaces, Some(&link.name)))
            .filter(|link| !self.links.iter().any(|known| known.index == link.index))
            .collect();
        let attached = self.probes.attach_interfaces(&self.netns, &new);
        self.links.extend(new);
        if let Some(ports) = &self.named_ports {
            let devices = self.links.iter().map(|link| link.name.clone()).collect();
            self.send(Job::Firewalls(self.netns.inum(), Scope { ports: Some(ports.clone()), devices }));
        }
        attached
    }

    /// Something changed among the interfaces of the traced namespace. One that cannot be attached to does not end the trace of the
    /// others.
    pub(super) fn links_changed(&mut self) -> Result<(), Failure> {
        let events = self.watcher.read()?;
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            if let LinkEvent::Gone(index) = event {
                self.links.retain(|link| link.index != *index);
                self.probes.forget_interface(&self.netns, *index);
            }
        }
        if let Err(error) = self.attach(list_links(&self.netns)?) {
            log::warn!("what comes by an interface that is new is not seen: {}", with_causes(&error));
        }
        self.follow_containers()
    }

    /// Something changed among the interfaces of the traced namespace or of those behind it.
    pub(super) fn links_behind_changed(&mut self) -> Result<(), Failure> {
        if self.watcher_behind.read()?.is_empty() { Ok(()) } else { self.follow_containers() }
    }
}

type Started = (Sender<Job>, JoinHandle<Reported>, oneshot::Receiver<()>);

fn start_reporter(
    args: &TraceArgs,
    netns: &Netns,
    facts: Arc<KernelFacts>,
    wsl: Wsl,
    keeper: Keeper,
) -> Result<Started, Failure> {
    let output = if args.json {
        Output::Json(JsonOutput::new(io::stdout(), args.failures))
    } else {
        let (verbosity, shown) = (Verbosity::asked(args.quiet, args.verbose), Shown::asked(args.all, args.failures));
        if args.exports_to_stdout() {
            let options = TextOptions::detect_beside(verbosity, shown);
            Output::Text(Box::new(TextOutput::new(Box::new(io::stderr()), io::stderr(), options, Instant::now())))
        } else {
            let mut options = TextOptions::detect(verbosity, shown);
            // Lines are not rewritten where others write too.
            options.live &= args.client.is_empty() && !args.verbose;
            Output::Text(Box::new(TextOutput::new(Box::new(io::stdout()), io::stderr(), options, Instant::now())))
        }
    };
    let (gone, reporter_gone) = oneshot::channel();
    let reporter = Reporter {
        names: MachineNames::new(facts, wsl == Wsl::Two),
        gatherer: Gatherer::new(),
        output,
        keeper,
        unaccepted: Unaccepted::default(),
        stalled: Stalled::default(),
        interfaces: args.interfaces.clone(),
        began_ns: now_ns(),
        began: Instant::now(),
        missed_ns: 0,
        programs: OnceCell::new(),
        netns: netns.clone(),
        id: 0,
        gone: Some(gone),
        written: Ok(()),
    };
    let (jobs, queue) = queue(QUEUE);
    let thread = std::thread::Builder::new().name("reporter".to_owned()).spawn(move || reporter.run(&queue))?;
    Ok((jobs, thread, reporter_gone))
}
