//! Everything that is on while tracing goes on: made, and kept up as interfaces and containers come.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use aya::maps::{MapData, RingBuf};
use tokio::sync::oneshot;

use super::surroundings::Surroundings;
use crate::cli::{TraceArgs, bitmap};
use crate::command::Failure;
use crate::command::keeper::Keeper;
use crate::command::reporter::{Job, Output, Reported, Reporter, is_wanted};
use crate::command::stalled::Stalled;
use crate::command::unaccepted::Unaccepted;
use crate::escape::shell_word;
use crate::evidence::{Gatherer, Scope, namespaces_behind};
use crate::kernel::links::{Link, LinkEvent, LinkWatcher, list_links};
use crate::kernel::names::{MachineNames, now_ns};
use crate::kernel::netns::Netns;
use crate::kernel::{self, KernelFacts, check};
use crate::output::{JsonOutput, Shown, TextOptions, TextOutput, Verbosity};
use crate::probe::{Loader, Probes, Role, Sizes};
use crate::wsl::Wsl;

/// How many jobs may wait for the reporter. When it falls behind, records stay where they cost this process no memory: in the ring
/// buffer, then in the kernel's table.
const QUEUE: usize = 2048;

/// Everything that is on while tracing goes on.
pub(super) struct Session {
    pub(super) probes: Probes,
    pub(super) records: AsyncRecords,
    pub(super) netns: Netns,
    pub(super) links: Vec<Link>,
    pub(super) watcher: LinkWatcher,
    /// Namespaces of containers that packets are followed into.
    pub(super) followed: Vec<Netns>,
    pub(super) jobs: SyncSender<Job>,
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
        let (jobs, reporter, reporter_gone) = start_reporter(args, facts, wsl, keeper)?;
        let mut session = Self {
            probes,
            records,
            netns,
            links: Vec::new(),
            watcher,
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
            missed_events: 0,
            named_ports: (!args.no_firewall_trace).then(|| args.ports.iter().map(|range| (range.first, range.last)).collect()),
        };
        session.send(Job::Watch(session.netns.clone()));
        session.probes.attach_namespace(&session.netns, Role::Traced)?;
        session.attach(links)?;
        session.follow_containers()?;
        Ok(session)
    }

    pub(super) fn send(&self, job: Job) {
        send(&self.jobs, job);
    }

    /// Attaches to interfaces that are up and wanted, and that are not attached to yet.
    fn attach(&mut self, links: Vec<Link>) -> Result<(), Failure> {
        self.send(Job::Links(self.netns.inum(), links.clone()));
        let new: Vec<Link> = links
            .into_iter()
            .filter(|link| link.up && is_wanted(&self.interfaces, Some(&link.name)))
            .filter(|link| !self.links.iter().any(|known| known.index == link.index))
            .collect();
        self.probes.attach_interfaces(&self.netns, &new)?;
        self.links.extend(new);
        if let Some(ports) = &self.named_ports {
            let devices = self.links.iter().map(|link| link.name.clone()).collect();
            self.send(Job::Firewalls(self.netns.inum(), Scope { ports: Some(ports.clone()), devices }));
        }
        Ok(())
    }

    /// Attaches in the namespaces of containers that are not followed yet.
    fn follow_containers(&mut self) -> Result<(), Failure> {
        let behind = namespaces_behind(&self.netns)?;
        for joined in behind.joined {
            let netns = joined.netns;
            if netns == self.netns || self.followed.contains(&netns) {
                continue;
            }
            self.send(Job::Watch(netns.clone()));
            self.probes.attach_namespace(&netns, Role::Followed)?;
            let links = list_links(&netns)?;
            self.send(Job::Links(netns.inum(), links.clone()));
            let up: Vec<Link> = links.into_iter().filter(|link| link.up).collect();
            self.probes.attach_interfaces(&netns, &up)?;
            if self.named_ports.is_some() {
                let devices = up.into_iter().map(|link| link.name).collect();
                self.send(Job::Firewalls(netns.inum(), Scope { ports: None, devices }));
            }
            self.followed.push(netns);
        }
        for interface in behind.hidden {
            log::debug!("the namespace behind {interface} is not visible here: packets are not followed into it");
        }
        Ok(())
    }

    /// Something changed among the interfaces of the traced namespace.
    pub(super) fn links_changed(&mut self) -> Result<(), Failure> {
        let events = self.watcher.read()?;
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            if let LinkEvent::Gone(index) = event {
                self.links.retain(|link| link.index != *index);
            }
        }
        self.attach(list_links(&self.netns)?)?;
        self.follow_containers()
    }
}

type Started = (SyncSender<Job>, JoinHandle<Reported>, oneshot::Receiver<()>);

fn start_reporter(args: &TraceArgs, facts: Arc<KernelFacts>, wsl: Wsl, keeper: Keeper) -> Result<Started, Failure> {
    let output = if args.json {
        Output::Json(JsonOutput::new(io::stdout(), args.failures))
    } else {
        let (verbosity, shown) = (Verbosity::asked(args.quiet, args.verbose), Shown::asked(args.all, args.failures));
        if args.exports_to_stdout() {
            let options = TextOptions::detect_beside(verbosity, shown);
            Output::Text(Box::new(TextOutput::new(Box::new(io::stderr()), io::stderr(), options)))
        } else {
            let mut options = TextOptions::detect(verbosity, shown);
            // Lines are not rewritten where others write too.
            options.live &= args.client.is_empty() && !args.verbose;
            Output::Text(Box::new(TextOutput::new(Box::new(io::stdout()), io::stderr(), options)))
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
        missed_ns: 0,
        programs: OnceCell::new(),
        id: 0,
        gone: Some(gone),
        written: Ok(()),
    };
    let (jobs, queue) = mpsc::sync_channel(QUEUE);
    let thread = std::thread::Builder::new().name("reporter".to_owned()).spawn(move || reporter.run(&queue))?;
    Ok((jobs, thread, reporter_gone))
}

/// Sends a job, waiting while the reporter has enough to do. When it is gone, the loop hears of it by `reporter_gone`.
pub(super) fn send(jobs: &SyncSender<Job>, job: Job) {
    if jobs.send(job).is_err() {
        log::debug!("the reporter has ended");
    }
}
