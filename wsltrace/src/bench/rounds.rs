//! Which path is measured when: in rounds, each path once a round in an order that is drawn anew, so that what changes on the
//! machine meanwhile falls on all of them.

use std::io;
use std::time::{Duration, Instant};

use super::attempt::Mode;
use super::load::{Load, Stop, run};
use super::tally::Tally;
use super::target::Resolved;
use super::trace::legs::Legs;
use super::trace::{Tracer, Tracing};
use crate::probe::Missing;

/// Longest warm-up of a path, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// Rounds when there is time for them: enough for an interval.
const ROUNDS: u32 = 8;
/// A shorter round would measure its own beginning.
const SHORTEST: Duration = Duration::from_millis(250);

/// A seed for the orders. Programs that read JSON often keep 53 bits of a number only, and it is to be typed again.
pub fn drawn_seed() -> u64 {
    fastrand::u64(..1 << 53)
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The targets, the baseline first.
    pub targets: Vec<Resolved>,
    /// What the clients do; each is a path of its own for each target.
    pub modes: Vec<Mode>,
    /// How many clients at once.
    pub clients: u32,
    /// For how long each path is measured in all.
    pub duration: Duration,
    /// Into how many rounds that is divided; `None`: as many as are useful.
    pub rounds: Option<u32>,
    /// Attempts a second, when fixed.
    pub rate: Option<f64>,
    /// How long an attempt may take.
    pub limit: Duration,
    /// Draws the orders.
    pub seed: u64,
}

/// A target used in one way.
#[derive(Clone, Debug)]
pub struct Path {
    /// The target.
    pub target: Resolved,
    /// What the clients do.
    pub mode: Mode,
    /// What came of each round.
    pub rounds: Vec<Tally>,
    /// What came of it with the tracer on, in the same rounds; nothing where there was none.
    pub traced: Vec<Tally>,
    /// What the tracer saw.
    pub legs: Legs,
    /// How many segments the server's side sent again with the tracer on; `None` where that was not counted.
    pub sent_again: Option<u64>,
    /// Nobody answered while it was warmed up: then that is its only round, since each would last as long as an attempt may take.
    pub given_up: bool,
    /// The run was ended in it before any attempt had: it is no round, and tells what was under way and what was still to be begun.
    pub cut_off: Option<Tally>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// By path, in the order of the table.
    pub paths: Vec<Path>,
    /// Whether the tracer was beside it, and what it missed.
    pub tracer: Beside,
    /// Why nothing is known of TCP segments; `None` where they were counted.
    pub segments_unknown: Option<&'static str>,
}

/// The tracer beside a measurement.
#[derive(Clone, Debug)]
pub enum Beside {
    /// It traced.
    Traced {
        /// Records lost: so many handshakes may be missing.
        lost: u64,
        /// Probes that were not on, and what that costs.
        missing: Vec<Missing>,
        /// The ports that it traced.
        ports: Vec<u16>,
    },
    /// It did not, for this reason.
    Not(String),
}

impl Path {
    /// Nothing is measured yet.
    pub(super) fn new(target: Resolved, mode: Mode) -> Self {
        let (rounds, traced, legs) = Default::default();
        Self { target, mode, rounds, traced, legs, sent_again: None, given_up: false, cut_off: None }
    }

    /// The rounds that its figures are made of: those without the tracer. A run that was ended before the first of them has others only;
    /// never both, since what the tracer costs is in one kind and not in the other.
    pub fn shown(&self) -> &[Tally] {
        if self.is_with_tracer() { &self.traced } else { &self.rounds }
    }

    /// Whether the tracer was on in the rounds that its figures are made of.
    pub fn is_with_tracer(&self) -> bool {
        self.rounds.is_empty() && !self.traced.is_empty()
    }

    /// The rounds that its figures are made of together, with all that was left over at the end.
    pub fn total(&self) -> Tally {
        let mut total = total(self.shown());
        if let Some(cut_off) = &self.cut_off {
            total.add_left_over(cut_off);
        }
        total
    }

    /// All rounds with the tracer on together.
    pub fn total_traced(&self) -> Tally {
        total(&self.traced)
    }

    /// Its name in the table.
    pub fn name(&self, many_modes: bool) -> String {
        match (many_modes, self.mode) {
            (false, _) => self.target.name.clone(),
            (true, Mode::HttpKeepAlive) => format!("{}, keep-alive", self.target.name),
            (true, Mode::Http) => format!("{}, new connections", self.target.name),
            (true, Mode::Connect) => format!("{}, connect", self.target.name),
        }
    }
}

fn total(rounds: &[Tally]) -> Tally {
    let mut total = Tally::default();
    for round in rounds {
        total.add(round, false);
    }
    total
}

impl Plan {
    /// How many rounds there are.
    pub fn rounds(&self) -> u32 {
        let possible = self.duration.as_nanos() / SHORTEST.as_nanos();
        self.rounds.unwrap_or_else(|| u32::try_from(possible).unwrap_or(ROUNDS).clamp(1, ROUNDS))
    }

    /// How long each path is warmed up, which is not counted.
    pub fn warm_up(&self) -> Duration {
        WARM_UP.min(self.duration / 10)
    }

    /// Measures. Where there is `tracing`, each round has two halves in an order that is drawn, and the tracer is on in one of them, so
    /// that what it costs is seen too; it decides nothing in the table. `tell` hears what is measured now, with the part of the time that
    /// is over. When it is told to stop, what was measured by then is given.
    pub fn measure(
        &self,
        tracing: Result<&Tracing, String>,
        stop: &Stop,
        tell: impl FnMut(&str, f64),
    ) -> io::Result<Measurement> {
        let with_modes = self.targets.iter().flat_map(|target| self.modes.iter().map(move |mode| (target, *mode)));
        let paths: Vec<Path> = with_modes.map(|(target, mode)| Path::new(target.clone(), mode)).collect();
        let (tracing, beside) = match tracing {
            Ok(tracing) => (Some(tracing), Beside::Traced { lost: 0, missing: Vec::new(), ports: tracing.ports().to_vec() }),
            Err(why) => (None, Beside::Not(why)),
        };
        let steps = (self.rounds() * (1 + u32::from(tracing.is_some())) + 1) as usize * paths.len();
        let mut run = Run { plan: self, start: Instant::now(), paths, beside, tracer: None, stop, tell, steps, done: 0 };
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut order: Vec<usize> = (0..run.paths.len()).collect();
        let mut halves = [false, true];
        random.shuffle(&mut order);
        run.half(&order, self.warm_up(), |path, tally| {
            if tally.is_silent() {
                path.given_up = true;
                path.rounds.push(tally);
            }
        })?;
        for _ in 0..self.rounds() {
            random.shuffle(&mut halves);
            for with_tracer in halves {
                // Nor is the tracer put in once more for nothing.
                if *stop.borrow() {
                    break;
                }
                random.shuffle(&mut order);
                if !with_tracer {
                    run.half(&order, self.duration / self.rounds(), |path, tally| path.rounds.push(tally))?;
                } else if let Some(tracing) = tracing {
                    run.traced_half(tracing, &order)?;
                }
            }
        }
        Ok(Measurement { paths: run.paths, tracer: run.beside, segments_unknown: None })
    }
}

/// A plan that is being carried out.
struct Run<'a, T> {
    plan: &'a Plan,
    start: Instant,
    paths: Vec<Path>,
    beside: Beside,
    /// The tracer that is on now.
    tracer: Option<Tracer>,
    stop: &'a Stop,
    tell: T,
    steps: usize,
    done: usize,
}

impl<T: FnMut(&str, f64)> Run<'_, T> {
    /// Measures each path once.
    fn half(&mut self, order: &[usize], duration: Duration, keep: fn(&mut Path, Tally)) -> io::Result<()> {
        for index in order {
            let Some(path) = self.paths.get_mut(*index).filter(|path| !path.given_up && !*self.stop.borrow()) else {
                self.done += 1;
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "a few steps")]
            (self.tell)(&path.name(self.plan.modes.len() > 1), self.done as f64 / self.steps as f64);
            self.done += 1;
            if let Some(Err(error)) = self.tracer.as_mut().map(|tracer| tracer.turn(*index)) {
                self.beside = Beside::Not(chain(&error));
                self.tracer = None;
                // What is measured from here on would count as traced.
                return Ok(());
            }
            let Plan { clients, rate, limit, .. } = *self.plan;
            let load = Load { clients, duration, rate, mode: path.mode, limit };
            let began = self.start.elapsed();
            let tally = Tally { began, ..run(&load, &path.target, self.stop)? };
            if tally.is_cut_off() {
                path.cut_off = Some(tally);
            } else {
                keep(path, tally);
            }
        }
        Ok(())
    }

    /// Does so with the tracer on. One that fails is not tried again, and the measurement goes on without it.
    fn traced_half(&mut self, tracing: &Tracing, order: &[usize]) -> io::Result<()> {
        let Beside::Traced { .. } = self.beside else { return Ok(()) };
        match tracing.start(self.paths.len()) {
            Ok(tracer) => self.tracer = Some(tracer),
            Err(error) => {
                self.beside = Beside::Not(chain(&error));
                return Ok(());
            }
        }
        self.half(order, self.plan.duration / self.plan.rounds(), |path, tally| path.traced.push(tally))?;
        match self.tracer.take().map(Tracer::stop) {
            Some(Ok(traced)) => {
                for (path, legs) in self.paths.iter_mut().zip(traced.paths) {
                    path.legs.join(legs);
                }
                for (path, count) in self.paths.iter_mut().zip(traced.sent_again.into_iter().flatten()) {
                    *path.sent_again.get_or_insert_default() += count;
                }
                if let Beside::Traced { lost, missing, .. } = &mut self.beside {
                    *lost += traced.lost;
                    *missing = traced.missing;
                }
            }
            Some(Err(error)) => self.beside = Beside::Not(chain(&error)),
            None => {}
        }
        Ok(())
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;

    use super::*;
    use crate::kernel::netns::Netns;
    use crate::lab::{Lab, LabError, cannot_run};

    /// The client is alone, so that an attempt has ended and is counted when its next one comes.
    const ENOUGH: u64 = 3;

    /// A run that is ended in its first half, at a connection of that half.
    fn ended_in_the_first_half(lab: &Lab, seed: u64) -> Result<Measurement, LabError> {
        let io = |what: &'static str| LabError::io(what);
        let listener = lab.wsl.run(|| TcpListener::bind("127.0.0.1:0").map_err(io("listen")))?;
        let address = listener.local_addr().map_err(io("ask for the port"))?;
        let (interrupt, stop) = watch::channel(false);
        let (counts, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (counting, last) = (counts.clone(), Arc::new(Mutex::new(None)));
        let held = last.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if counting.load(Ordering::SeqCst) && arrived.fetch_add(1, Ordering::SeqCst) == ENOUGH {
                    // Closed now, it would be one more that has ended.
                    held.lock().unwrap().replace(stream);
                    interrupt.send_replace(true);
                    return;
                }
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).is_ok());
                // A client whose time is up has gone.
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
            }
        });
        let tracing = Tracing::prepare(Netns::at(&lab.wsl.path()).unwrap(), &[address.port()]).unwrap();
        let plan = Plan {
            targets: vec![Resolved { name: "it".to_owned(), host: address.to_string(), address }],
            modes: vec![Mode::Http],
            clients: 1,
            duration: Duration::from_mins(10),
            rounds: Some(1),
            rate: None,
            limit: Duration::from_mins(10),
            seed,
        };
        let mut steps = 0;
        let tell = |_: &str, _| {
            steps += 1;
            // The first step warms up.
            counts.store(steps == 2, Ordering::SeqCst);
        };
        let measured = lab.wsl.run(|| plan.measure(Ok(&tracing), &stop, tell).map_err(io("measure")));
        drop(last);
        measured
    }

    #[test]
    fn what_was_measured_before_the_end_is_shown_with_the_tracer_on_as_well() {
        if cannot_run("what_was_measured_before_the_end_is_shown_with_the_tracer_on_as_well") {
            return;
        }
        let lab = Lab::new(None).unwrap();
        let mut kinds = Vec::new();
        // The seed draws which half comes first.
        for seed in 0..16 {
            let path = ended_in_the_first_half(&lab, seed).unwrap().paths.remove(0);
            assert_eq!(path.total().attempts(), ENOUGH, "seed {seed}");
            assert_eq!((path.rounds.len(), path.traced.len()), if path.is_with_tracer() { (0, 1) } else { (1, 0) });
            kinds.push(path.is_with_tracer());
            if kinds.contains(&true) && kinds.contains(&false) {
                return;
            }
        }
        panic!("the tracer came first in all runs or in none: {kinds:?}");
    }
}
