//! Which path is measured when: in rounds, each path once a round in an order that is drawn anew, so that what changes on the
//! machine meanwhile falls on all of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::attempt::Mode;
use super::load::{Load, run};
use super::tally::Tally;
use super::target::Resolved;

/// Longest warm-up of a path, which is not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// Rounds when there is time for them: enough for an interval.
const ROUNDS: u32 = 8;
/// A shorter round would measure its own beginning.
const SHORTEST: Duration = Duration::from_millis(250);

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
}

impl Path {
    /// All rounds together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for round in &self.rounds {
            total.add(round, false);
        }
        total
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

impl Plan {
    /// How many rounds there are.
    pub fn rounds(&self) -> u32 {
        let possible = self.duration.as_nanos() / SHORTEST.as_nanos();
        u32::try_from(possible).unwrap_or(ROUNDS).clamp(1, ROUNDS)
    }

    /// How long all of it takes.
    pub fn takes(&self) -> Duration {
        let paths = u32::try_from(self.targets.len() * self.modes.len()).unwrap_or(u32::MAX);
        (self.duration + self.warm_up()) * paths
    }

    fn warm_up(&self) -> Duration {
        WARM_UP.min(self.duration / 10)
    }

    /// Measures; `tell` hears what is measured now, with the part of the time that is over. When `stop` is set, what was measured
    /// by then is given.
    pub async fn measure(&self, stop: &Arc<AtomicBool>, mut tell: impl FnMut(&str, f64)) -> io::Result<Vec<Path>> {
        let with_modes = self.targets.iter().flat_map(|target| self.modes.iter().map(move |mode| (target, *mode)));
        let mut paths: Vec<Path> =
            with_modes.map(|(target, mode)| Path { target: target.clone(), mode, rounds: Vec::new() }).collect();
        let (rounds, mut random) = (self.rounds(), fastrand::Rng::with_seed(self.seed));
        let (steps, mut done) = ((rounds + 1) as usize * paths.len(), 0_usize);
        let start = Instant::now();
        let mut order: Vec<usize> = (0..paths.len()).collect();
        for round in 0..=rounds {
            random.shuffle(&mut order);
            for index in &order {
                let Some(path) = paths.get_mut(*index).filter(|_| !stop.load(Ordering::Relaxed)) else { continue };
                #[expect(clippy::cast_precision_loss, reason = "a few steps")]
                tell(&path.name(self.modes.len() > 1), done as f64 / steps as f64);
                done += 1;
                // The first round warms up.
                let duration = if round == 0 { self.warm_up() } else { self.duration / rounds };
                let load = Load { clients: self.clients, duration, rate: self.rate, mode: path.mode, limit: self.limit };
                let began = start.elapsed();
                let tally = run(&load, &path.target, stop).await?;
                if round > 0 {
                    path.rounds.push(Tally { began, ..tally });
                }
            }
        }
        Ok(paths)
    }
}
