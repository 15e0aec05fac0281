//! `wsltrace --port N`: put the probes in, read what they see until it is enough, and say what it was.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wsltrace_common::{Counter, Flags, Record, StageCode};

use super::Failure;
use super::names::{MachineNames, now_ns};
use super::reporter::{Job, Output, Reporter, When, is_wanted};
use crate::cli::{TraceArgs, bitmap};
use crate::evidence::Gatherer;
use crate::journey::decode;
use crate::kernel::links::{Link, LinkEvent, LinkWatcher, container_namespaces, list_links};
use crate::kernel::netns::Netns;
use crate::kernel::{self, KernelFacts, check};
use crate::output::contract::{self, Absence, Armed, Lost};
use crate::output::{JsonOutput, TextOptions, TextOutput, Verbosity, absence_message};
use crate::probe::{Detail, Probes, Role, Sizes};
use crate::wsl::{self, Wsl};

/// How long after its last event a journey is written that may still go on.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for a SYN-ACK that the client has not acknowledged.
const UNANSWERED: Duration = Duration::from_secs(3);
/// The same for a packet that waits for its neighbour: the kernel asks three times, a second apart, before it gives up.
const NEIGHBOUR: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Traces until something ends it.
pub fn run(args: &TraceArgs) -> Result<(), Failure> {
    if args.ports.is_empty() {
        return Err(Failure::usage("the port of the server is missing", "sudo wsltrace --port 8080"));
    }
    let machine = check::Machine::read()?;
    let problems = check::problems(&machine, &typed_command());
    if let Some(first) = problems.first() {
        let message = problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
        return Err(Failure { message, hint: Some(first.hint.clone()), status: 1 });
    }
    let ready = args.ready_file.as_deref().map(ReadyFile::prepare).transpose()?;
    let netns = args.netns.as_deref().map_or_else(Netns::current, Netns::open)?;
    raise_descriptor_limit();
    let session = Session::start(args, netns, machine.wsl)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(session.trace(args, ready))
}

fn typed_command() -> String {
    std::env::args().map(|argument| crate::escape::shell_word(&argument)).collect::<Vec<_>>().join(" ")
}

/// Every attached position is a descriptor of this process: about 70 a namespace.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("cannot raise the limit of open files: {error}");
    }
}

/// The file that says that every probe is on. Whether its place can be written to is looked at before anything is attached;
/// it is made in one go at the end, so that a killed run leaves none.
struct ReadyFile<'a> {
    path: &'a Path,
    folder: &'a Path,
}

impl<'a> ReadyFile<'a> {
    fn prepare(path: &'a Path) -> Result<Self, Failure> {
        use nix::unistd::{AccessFlags, access};
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ready = Self { path, folder };
        if path.is_dir() || path.file_name().is_none() {
            return Err(ready.failure(&io::Error::from(io::ErrorKind::IsADirectory)));
        }
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| ready.failure(&errno.into()))?;
        Ok(ready)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure {
            message: format!("cannot make the ready file {}: {}", self.path.display().to_string().escape_debug(), error.kind()),
            hint: Some("name a file in a folder that exists and can be written to".to_owned()),
            status: 1,
        }
    }

    fn publish(&self) -> Result<(), Failure> {
        let made = tempfile::NamedTempFile::new_in(self.folder).and_then(|file| Ok(file.persist(self.path)?));
        made.map(drop).map_err(|error| self.failure(&error))
    }
}

/// Everything that is on while tracing goes on.
struct Session {
    probes: Probes,
    records: AsyncRecords,
    netns: Netns,
    links: Vec<Link>,
    watcher: LinkWatcher,
    /// Namespaces of containers that packets are followed into.
    followed: Vec<Netns>,
    jobs: Sender<Job>,
    reporter: JoinHandle<io::Result<()>>,
    /// Resolves when the reporter has ended by itself.
    reporter_gone: oneshot::Receiver<()>,
    wsl: Wsl,
    began_ns: u64,
    interfaces: Vec<String>,
    seen: u64,
}

type AsyncRecords = RingBuf<MapData>;

impl Session {
    fn start(args: &TraceArgs, netns: Netns, wsl: Wsl) -> Result<Self, Failure> {
        // Watch before listing, so that no interface falls between.
        let watcher = LinkWatcher::new(&netns)?;
        let links = list_links(&netns)?;
        for name in &args.interfaces {
            if !links.iter().any(|link| link.name == *name) {
                let names = links.iter().map(|link| link.name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
                return Err(Failure {
                    message: format!("there is no interface {}", name.escape_debug()),
                    hint: Some(format!("the interfaces here are: {names}")),
                    status: 1,
                });
            }
        }
        let facts = Arc::new(kernel::read()?);
        let sizes = Sizes { journeys: args.table_entries, ring_bytes: args.ring_pages.map(|pages| pages * 4096) };
        let log_level = if args.verbose { 4 } else { 0 };
        let mut probes = Probes::load(&facts, &bitmap(&args.ports), args.detail, sizes, log_level)?;
        let records = probes.take_records()?;
        let (jobs, reporter, reporter_gone) = start_reporter(args, facts, wsl)?;
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
            wsl,
            began_ns: now_ns(),
            interfaces: args.interfaces.clone(),
            seen: 0,
        };
        session.send(Job::Watch(session.netns.clone()));
        session.probes.attach_namespace(&session.netns, Role::Traced)?;
        session.attach(links)?;
        session.follow_containers()?;
        Ok(session)
    }

    fn send(&self, job: Job) {
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
        Ok(())
    }

    /// Attaches in the namespaces of containers that are not followed yet.
    fn follow_containers(&mut self) -> Result<(), Failure> {
        let behind = container_namespaces(&self.netns)?;
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
            self.followed.push(netns);
        }
        for interface in behind.hidden {
            log::debug!("the namespace behind {interface} is not visible here: packets are not followed into it");
        }
        Ok(())
    }

    /// Something changed among the interfaces of the traced namespace.
    fn links_changed(&mut self) -> Result<(), Failure> {
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

    async fn trace(mut self, args: &TraceArgs, ready: Option<ReadyFile<'_>>) -> Result<(), Failure> {
        // Signals are caught before anybody is told that tracing has begun.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut summary = signal(SignalKind::user_defined1())?;
        let _log = args.verbose.then(|| kernel_log(&mut self.probes)).transpose()?;
        self.probes.count_near_misses(true)?;
        self.probes.switch_on()?;
        self.say_armed(args)?;
        if let Some(ready) = ready {
            ready.publish()?;
        }
        // Descriptors of their own to wait on: the ring buffer and the watcher are used while these wait.
        let ring = wait_on(self.records.as_fd().try_clone_to_owned()?)?;
        let news = wait_on(self.watcher.as_fd().try_clone_to_owned()?)?;
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = args.duration.map(|duration| Instant::now() + duration);
        let mut absence = Some(Instant::now() + args.absence);
        loop {
            tokio::select! {
                ready = ring.readable() => {
                    let mut ready = ready?;
                    self.read_records(args.count)?;
                    ready.clear_ready();
                }
                changed = news.readable() => {
                    let mut changed = changed?;
                    self.links_changed()?;
                    changed.clear_ready();
                }
                _ = sweep.tick() => { self.sweep(false)?; }
                _ = second.tick() => self.send(Job::Tick),
                () = at(absence), if absence.is_some() && self.seen == 0 => {
                    self.say_absence(args)?;
                    absence = None;
                }
                () = at(end), if end.is_some() => break,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = summary.recv() => self.say_summary(When::Between)?,
                _ = &mut self.reporter_gone => break,
            }
            if self.seen > 0 && absence.take().is_some() {
                self.probes.count_near_misses(false)?;
            }
            if args.count.is_some_and(|count| self.seen >= count) {
                break;
            }
        }
        self.finish(args)
    }

    /// Ends every open journey, says the summary, and waits until it is written.
    fn finish(mut self, args: &TraceArgs) -> Result<(), Failure> {
        // The ring buffer may be too small for all of them at once: drain it between.
        loop {
            let left = self.sweep(true)?;
            let before = self.seen;
            self.read_records(args.count)?;
            if left == 0 || (self.seen == before && args.count.is_some_and(|count| self.seen >= count)) {
                break;
            }
        }
        self.say_summary(When::AtTheEnd)?;
        drop(self.jobs);
        match self.reporter.join() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Passes on what the ring buffer holds, at most as many journeys as are wanted.
    fn read_records(&mut self, count: Option<u64>) -> Result<(), Failure> {
        while let Some(item) = self.records.next() {
            let record = decode(&item)?;
            drop(item);
            if count.is_some_and(|count| self.seen >= count) {
                continue;
            }
            self.seen += 1;
            send(&self.jobs, Job::Record(Box::new(record)));
        }
        Ok(())
    }

    /// Ends journeys that are overdue, or all of them. Gives how many are left.
    fn sweep(&mut self, all: bool) -> Result<usize, Failure> {
        let now = now_ns();
        Ok(self.probes.sweep(|record| all || is_overdue(record, now))?)
    }

    fn say_armed(&mut self, args: &TraceArgs) -> Result<(), Failure> {
        let armed = Armed {
            r#type: contract::ArmedTag::Armed,
            schema: contract::Version,
            time: contract::Time(jiff::Timestamp::now()),
            netns: self.netns.inum(),
            ports: port_ranges(args),
            detail: match args.detail {
                Detail::Full => contract::Detail::Full,
                Detail::Light => contract::Detail::Light,
            },
            interfaces: self.watched_interfaces(),
            probes_on: self.probes.on().into_iter().map(|(name, count)| contract::ProbeOn { name, count }).collect(),
            probes_missing: self
                .probes
                .missing()
                .iter()
                .map(|missing| contract::ProbeMissing {
                    probe: missing.probe.clone(),
                    reason: missing.reason.clone(),
                    cost: missing.cost.clone(),
                })
                .collect(),
        };
        let (written, answer) = mpsc::channel();
        self.send(Job::Armed(Box::new(armed), written));
        match answer.recv() {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(result) => Ok(result?),
            // The reporter has ended; its own error is told at the end.
            Err(mpsc::RecvError) => Ok(()),
        }
    }

    fn watched_interfaces(&self) -> Vec<contract::Interface> {
        let netns = self.netns.inum();
        self.links.iter().map(|link| contract::Interface { name: link.name.clone(), netns, index: link.index }).collect()
    }

    fn say_absence(&mut self, args: &TraceArgs) -> Result<(), Failure> {
        let mode = wsl::networking_mode(self.wsl, &self.links).map(|(mode, _)| mode.name().to_owned());
        let name = |index: u32| {
            self.links.iter().find(|link| link.index == index).map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let mut near_misses: Vec<contract::NearMiss> = self
            .probes
            .near_misses()?
            .into_iter()
            .filter_map(|(miss, count)| {
                Some(contract::NearMiss { port: u16::try_from(miss.port).ok()?, interface: name(miss.ifindex), count })
            })
            .collect();
        near_misses.sort_by(|a, b| b.count.cmp(&a.count).then(a.port.cmp(&b.port)));
        let port = args.ports.first().map_or(0, |range| range.first);
        self.send(Job::Absence(Box::new(Absence {
            r#type: contract::AbsenceTag::Absence,
            schema: contract::Version,
            time: contract::Time(jiff::Timestamp::now()),
            seconds: args.absence.as_secs(),
            ports: port_ranges(args),
            interfaces: self.watched_interfaces(),
            message: absence_message(mode.as_deref(), port),
            mode,
            near_misses,
        })));
        Ok(())
    }

    fn say_summary(&mut self, when: When) -> Result<(), Failure> {
        let lost = lost(&self.probes)?;
        self.send(Job::Summary(now_ns().saturating_sub(self.began_ns), lost, when));
        Ok(())
    }
}

/// Sends a job. When the reporter is gone, the loop hears of it by `reporter_gone`.
fn send(jobs: &Sender<Job>, job: Job) {
    if jobs.send(job).is_err() {
        log::debug!("the reporter has ended");
    }
}

/// Records lost so far. A full ring buffer loses nothing: the record waits in the table and is collected from there.
fn lost(probes: &Probes) -> Result<Lost, Failure> {
    let table_full = probes.counter(Counter::TableFull)?;
    let stages_full = probes.counter(Counter::StagesFull)?;
    let keys_full = probes.counter(Counter::KeysFull)?;
    Ok(Lost { table_full, ring_full: 0, stages_full, keys_full, total: table_full + stages_full + keys_full })
}

/// Whether nothing more is to be expected of a journey, by the time since its last event.
fn is_overdue(record: &Record, now_ns: u64) -> bool {
    if record.flags & Flags::DONE != 0 {
        return true;
    }
    let last = (record.stage_count as usize).checked_sub(1).and_then(|index| record.stages.get(index));
    let code = last.and_then(|entry| StageCode::from_number(entry.time_and_code.to_le_bytes()[0]));
    let waits_for_neighbour = matches!(code, Some(StageCode::PostroutingEnd | StageCode::Postrouting))
        && record.death.time_ns == 0
        && record.answer_death.time_ns == 0;
    let unacknowledged = record.flags & Flags::SYN_ACK != 0 && record.flags & Flags::ACK == 0;
    let patience = if waits_for_neighbour {
        NEIGHBOUR
    } else if unacknowledged {
        UNANSWERED
    } else {
        SILENCE
    };
    u128::from(now_ns.saturating_sub(record.last_ns)) >= patience.as_nanos()
}

fn port_ranges(args: &TraceArgs) -> Vec<contract::PortRange> {
    args.ports.iter().map(|range| contract::PortRange { first: range.first, last: range.last }).collect()
}

type Started = (Sender<Job>, JoinHandle<io::Result<()>>, oneshot::Receiver<()>);

fn start_reporter(args: &TraceArgs, facts: Arc<KernelFacts>, wsl: Wsl) -> Result<Started, Failure> {
    let output = if args.json {
        Output::Json(JsonOutput::new(io::stdout(), args.failures))
    } else {
        let verbosity = match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        Output::Text(Box::new(TextOutput::new(io::stdout(), io::stderr(), TextOptions::detect(verbosity, args.failures))))
    };
    let reporter = Reporter {
        names: MachineNames::new(facts, wsl == Wsl::Two),
        gatherer: Gatherer::new(),
        output,
        interfaces: args.interfaces.clone(),
    };
    let (jobs, queue) = mpsc::channel();
    let (gone, reporter_gone) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("reporter".to_owned()).spawn(move || {
        // Dropped when the thread ends, however it ends.
        let _gone = gone;
        reporter.run(&queue)
    })?;
    Ok((jobs, thread, reporter_gone))
}

/// Passes the kernel side's debug text to the log.
fn kernel_log(probes: &mut Probes) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let logger = aya_log::EbpfLogger::init(probes.ebpf_mut())?;
    // SAFETY: the descriptor is the logger's ring buffer, which it keeps open and unchanged until it is dropped with this.
    let mut logger = unsafe { AsyncFd::register(logger) }?;
    Ok(tokio::task::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}

/// Waits for a descriptor to become readable.
fn wait_on(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same, until it is dropped with the registration.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
