//! The loop that waits for whatever comes first: packets, news of interfaces, time, signals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wsltrace_common::Counter;

use super::client::{Client, Running};
use super::patience::with_patience;
use super::ready_file::ReadyFile;
use super::session::Session;
use super::{Ending, memory};
use crate::cli::TraceArgs;
use crate::command::reporter::{Job, When};
use crate::command::signals::{AtOnce, Endings};
use crate::command::{Failure, printed};
use crate::journey::{decode, is_for_another, source};
use crate::kernel::names::now_ns;
use crate::output::Why;
use crate::probe::{ProbeError, Probes, Swept};
use crate::sweep::{IsOver, sweep, sweep_until_empty};

/// How often ended and overdue journeys are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Session {
    pub(super) async fn trace(
        mut self,
        args: &TraceArgs,
        ready: Option<ReadyFile<'_>>,
        client: Option<Client>,
    ) -> Result<Ending, Failure> {
        // Signals are caught before anybody is told that tracing has begun.
        let at_once = AtOnce::now()?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut endings = Endings::catch()?;
        let mut summary = signal(SignalKind::user_defined1())?;
        let mut resumed = signal(SignalKind::from_raw(libc::SIGCONT))?;
        let _log = args.verbose.then(|| kernel_log(&mut self.probes)).transpose()?;
        memory::give_back();
        self.probes.count_near_misses(true)?;
        self.probes.switch(true)?;
        self.say_armed(args, client.as_ref()).await?;
        at_once.no_longer();
        if let Some(ready) = ready {
            ready.publish()?;
        }
        let began = Instant::now();
        let mut running = client.map(Client::start).transpose()?;
        let mut client_end = None;
        // Descriptors of their own to wait on: the ring buffer and the watcher are used while these wait.
        let ring = wait_on(self.records.as_fd().try_clone_to_owned()?)?;
        let news = wait_on(self.watcher.as_fd().try_clone_to_owned()?)?;
        let news_behind = wait_on(self.watcher_behind.as_fd().try_clone_to_owned()?)?;
        let mut next_look = Instant::now() + LOOK_EVERY;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = args.duration.map(|duration| Instant::now() + duration);
        let mut absence = Some(Instant::now() + args.absence);
        loop {
            tokio::select! {
                ready = ring.readable() => {
                    let mut ready = ready?;
                    self.read_records(args);
                    ready.clear_ready();
                }
                () = self.jobs.room(), if self.held_back => self.read_records(args),
                changed = news.readable() => {
                    let mut changed = changed?;
                    self.links_changed()?;
                    changed.clear_ready();
                }
                changed = news_behind.readable() => {
                    let mut changed = changed?;
                    self.links_behind_changed()?;
                    changed.clear_ready();
                }
                () = sleep_until(next_look) => next_look = Instant::now() + self.look(args)?,
                _ = second.tick() => {
                    self.look_for_missed_events()?;
                    self.let_go_of_the_dead()?;
                    self.tick();
                }
                () = at(absence), if absence.is_some() && self.seen == 0 => {
                    self.say_absence(args, Why::Time(args.absence))?;
                    absence = None;
                }
                () = at(end), if end.is_some() => break,
                said = ended(&mut running), if running.is_some() => {
                    running = None;
                    client_end = Some(ClientEnd { said: said?, ran: began.elapsed(), absence_told: absence.is_none() });
                    break;
                }
                _ = interrupt.recv() => {
                    self.send(Job::Interrupted);
                    if !running.as_mut().is_some_and(Running::interrupt) {
                        break;
                    }
                }
                () = endings.recv() => break,
                _ = summary.recv() => drop(self.say_summary(When::Between)?),
                _ = resumed.recv() => self.send(Job::Resumed),
                _ = &mut self.reporter_gone => break,
            }
            if self.seen > 0 && absence.take().is_some() {
                self.probes.count_near_misses(false)?;
            }
            if running.is_none() && args.count.is_some_and(|count| self.seen >= count) {
                break;
            }
        }
        if let Some(running) = running {
            running.dismiss().await?;
        }
        at_once.soon()?;
        let (ending, probes) = with_patience(|| self.finish(args, client_end))?;
        // The kernel takes its time to detach them, and nothing more is to be told meanwhile.
        drop(probes);
        Ok(ending)
    }

    /// Ends every open journey, says the summary, and waits until it is written. The probes are given back, still attached.
    fn finish(mut self, args: &TraceArgs, client_end: Option<ClientEnd>) -> Result<(Ending, Probes), Failure> {
        self.probes.switch(false)?;
        self.ending = true;
        self.look_for_missed_events()?;
        sweep_until_empty(|is_over| self.sweep(is_over, args))?;
        if let Some(end) = client_end {
            self.send(Job::Talk(end.said));
            if self.seen == 0 && !end.absence_told {
                self.say_absence(args, Why::Command(end.ran))?;
            }
        }
        if self.hidden > 0 {
            let (attempts, are) = if self.hidden == 1 { ("attempt", "is") } else { ("attempts", "are") };
            self.send(Job::Talk(format!("{} connection {attempts} of other clients {are} hidden by --source", self.hidden)));
        }
        let lost = self.say_summary(When::AtTheEnd)?.total;
        drop(self.jobs);
        let (tally, written) = self.reporter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        printed(written)?;
        Ok((Ending { tally, lost }, self.probes))
    }

    /// Passes on what the ring buffer holds of the wanted clients, at most as many journeys as are wanted. When the reporter falls behind,
    /// the rest stays where it costs this process no memory: in the ring buffer, then in the kernel's table.
    fn read_records(&mut self, args: &TraceArgs) {
        self.held_back = false;
        loop {
            if !self.ending && !self.jobs.has_room() {
                self.held_back = true;
                break;
            }
            let Some(item) = self.records.next() else { break };
            self.ended += 1;
            if is_for_another(&item) {
                continue;
            }
            if is_hidden(args, &item) {
                self.hidden += 1;
                continue;
            }
            if args.count.is_some_and(|count| self.seen >= count) {
                continue;
            }
            self.seen += 1;
            let bytes = item.to_vec();
            drop(item);
            self.send(Job::Record(bytes));
        }
    }

    /// Reads what has ended and ends what is overdue, when there can be any: looking for it takes a walk through the whole table,
    /// which nobody is to pay for at rest. Gives the time until the next look.
    fn look(&mut self, args: &TraceArgs) -> Result<Duration, Failure> {
        match self.probes.refresh_positions() {
            // Whose rules those are is to be known before the next packet comes.
            Ok(true) => self.tick(),
            Ok(false) => {}
            Err(error) => log::warn!("what was hooked into the firewall meanwhile cannot be told apart: {error}"),
        }
        if self.probes.counter(Counter::Begun)? == self.ended {
            return Ok(LOOK_EVERY);
        }
        let began = Instant::now();
        self.look_for_missed_events()?;
        // The kernel side wakes us only for many records.
        self.read_records(args);
        sweep(false, |is_over| self.sweep(is_over, args))?;
        // A flood of open journeys takes long to walk through; the loop has other things to do as well.
        Ok(LOOK_EVERY.max(began.elapsed()))
    }

    /// Has the reporter read the kernel's counters and rules, unless it has enough to do.
    fn tick(&self) {
        if self.jobs.has_room() {
            self.send(Job::Tick);
        }
    }

    /// Tells the reporter when events were missed: journeys that are under way may lack their end.
    fn look_for_missed_events(&mut self) -> Result<(), Failure> {
        let missed = self.probes.missed_events()?;
        if missed > self.missed_events {
            self.missed_events = missed;
            self.send(Job::Missed(now_ns()));
        }
        Ok(())
    }

    /// Looks at some more of the table of journeys, and passes on those that were ended by it.
    fn sweep(&mut self, is_over: IsOver<'_>, args: &TraceArgs) -> Result<Swept, ProbeError> {
        let swept = self.probes.sweep(is_over)?;
        self.read_records(args);
        Ok(swept)
    }
}

/// How the command after `--` has ended.
struct ClientEnd {
    said: String,
    /// For how long it ran.
    ran: Duration,
    /// That no SYN came was told before.
    absence_told: bool,
}

async fn ended(running: &mut Option<Running>) -> io::Result<String> {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}

/// Whether a record is of a client that is not wanted. One that cannot be read is the reporter's to complain of.
fn is_hidden(args: &TraceArgs, bytes: &[u8]) -> bool {
    let wanted = |address| args.sources.iter().any(|wanted| wanted.contains(address));
    !args.sources.is_empty() && decode(bytes).is_ok_and(|record| !wanted(source(&record)))
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
