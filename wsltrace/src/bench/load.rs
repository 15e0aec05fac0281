//! The load: so many clients, each making one attempt after the other, or each when it is its turn at a fixed rate.
//!
//! Clients are split evenly among as many threads as there are processors, and stay where they are: where threads take work from one
//! another, some clients are served late, and that is what the slowest times would show.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::watch;

use super::attempt::{BUFFER, Connection, Failure, Mode};
use super::http::{Answered, request};
use super::patience::Patience;
use super::slice::{self, Rounds};
use super::tally::{Tally, per_second};
use super::target::Resolved;
use super::turns::Turns;

/// Becomes true when the run is to end at once: attempts under way are given up, and are no attempts in what is told.
pub type Stop = watch::Receiver<bool>;

/// What to do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many clients at once.
    pub clients: u32,
    /// For how long attempts are begun.
    pub duration: Duration,
    /// Attempts a second, begun whether or not earlier ones have ended; `None`: each client as fast as it can.
    pub rate: Option<f64>,
    /// What a client does.
    pub mode: Mode,
    /// How long an attempt may take.
    pub limit: Duration,
}

/// How long a client rests after an attempt that this machine did not begin.
const PAUSE: Duration = Duration::from_millis(1);

/// What all clients of a thread share.
struct Shared {
    load: Load,
    target: Resolved,
    request: Vec<u8>,
    start: Instant,
    end: Instant,
    /// The thread's number.
    thread: usize,
    /// Where there is a rate; shared by all threads.
    turns: Option<Arc<Turns>>,
    rounds: Rounds,
    /// For what is read.
    buffer: Mutex<Vec<u8>>,
    /// Held for some stores to memory only, and by this thread alone until it has ended.
    tally: Mutex<Tally>,
}

/// Makes attempts until the time is up, or it is to stop.
pub fn run(load: &Load, target: &Resolved, stop: &Stop) -> io::Result<Tally> {
    let threads = u32::try_from(thread::available_parallelism()?.get()).unwrap_or(u32::MAX).clamp(1, load.clients.max(1));
    let start = Instant::now();
    let turns = load.rate.map(|rate| Arc::new(Turns::new(rate, threads as usize, start, start + load.duration)));
    let part =
        |number: u32| Load { clients: load.clients / threads + u32::from(number < load.clients % threads), ..load.clone() };
    let parts: Vec<Shared> =
        (0..threads).map(|number| Shared::new(part(number), target, start, number as usize, turns.clone())).collect();
    let tallies: Vec<io::Result<Tally>> = thread::scope(|scope| {
        let begun: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| part.run(stop.clone()))).collect();
        begun.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        all.add(&tally?, true);
    }
    let now = Instant::now();
    all.lasted = now - start;
    all.not_begun = turns.map_or(0, |turns| turns.not_taken(now));
    Ok(all)
}

impl Shared {
    fn new(load: Load, target: &Resolved, start: Instant, thread: usize, turns: Option<Arc<Turns>>) -> Self {
        Self {
            request: request(&target.host, load.mode == Mode::HttpKeepAlive),
            target: target.clone(),
            start,
            end: start + load.duration,
            thread,
            turns,
            rounds: Rounds::new(load.clients),
            buffer: Mutex::new(vec![0; BUFFER]),
            tally: Mutex::default(),
            load,
        }
    }

    /// The work of a thread.
    fn run(self, mut stop: Stop) -> io::Result<Tally> {
        slice::shorten();
        // Sockets are asked for news once all that are ready had their turn, not in the middle.
        let runtime = Builder::new_current_thread().enable_all().event_interval(self.load.clients.max(61)).build()?;
        let shared = Arc::new(self);
        let all = async {
            let clock = shared.turns.clone().map(|turns| {
                let thread = shared.thread;
                tokio::spawn(async move { turns.clock(thread).await })
            });
            let clients: Vec<_> = (0..shared.load.clients).map(|_| tokio::spawn(Client::new(shared.clone()).work())).collect();
            for client in clients {
                client.await.map_err(io::Error::other)?;
            }
            match clock {
                Some(clock) => clock.await.map_err(io::Error::other)?,
                None => Ok(()),
            }
        };
        runtime.block_on(async {
            tokio::select! {
                result = all => result,
                () = stopped(&mut stop) => Ok(()),
            }
        })?;
        // With it go the clients that are still at work; each counts its connection's segments.
        drop(runtime);
        let tally = std::mem::take(&mut *shared.tally.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tally)
    }

    fn tally<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits until it is to stop; for ever when nobody can say so any more.
async fn stopped(stop: &mut Stop) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One client, with what it keeps from one attempt to the next.
struct Client {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    patience: Patience,
    /// How many of its attempts were answered.
    answered: u64,
    /// The end of its last attempt; of one that failed, at most the end of the time.
    until: Instant,
    /// Since when the attempt that it is making has waited.
    waits_since: Option<Instant>,
}

impl Client {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            connection: None,
            patience: Patience::new(shared.load.limit),
            answered: 0,
            until: shared.start,
            waits_since: None,
            shared,
        }
    }

    /// Waits for its turn, where there are turns, makes an attempt, counts what came of it, and goes on until the time is up.
    async fn work(mut self) {
        let mut now = Instant::now();
        while now < self.shared.end {
            let intended = match &self.shared.turns {
                None => None,
                Some(turns) => {
                    let Some(intended) = turns.next(self.shared.thread).await else { break };
                    now = Instant::now();
                    Some(intended)
                }
            };
            self.waits_since = Some(intended.unwrap_or(now).min(now));
            let result = self.attempt(now).await;
            self.waits_since = None;
            let ended = Instant::now();
            match result {
                Ok((began, answer)) => {
                    let waited_since = intended.map_or(began, |intended| intended.min(began));
                    self.answered += 1;
                    self.until = ended;
                    self.shared.tally(|tally| tally.answered(ended - waited_since, ended - began, answer.is_error));
                    self.shared.rounds.answered();
                }
                Err(failure) => {
                    self.until = ended.min(self.shared.end);
                    self.shared.tally(|tally| tally.failed(failure));
                    // Nothing was waited for, so that the thread would never come to anything else.
                    if failure.is_at_once() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            now = Instant::now();
        }
    }

    /// Makes an attempt; gives when it began: now, or where connections are kept, when there was one to send the request over.
    async fn attempt(&mut self, now: Instant) -> Result<(Instant, Answered), Failure> {
        let (keeps, mut began) = (self.shared.load.mode == Mode::HttpKeepAlive, now);
        self.patience.begin(now);
        // Servers end connections that nobody used for a while, and whoever keeps some looks before.
        if self.connection.as_ref().is_some_and(Connection::is_spent) {
            self.hang_up();
        }
        if self.connection.is_none() {
            let connection = Connection::begin(self.shared.target.address)?;
            let made = self.patience.over(connection.made()).await.unwrap_or(Err(Failure::TimedOut));
            self.connection = Some(connection);
            if let Err(failure) = made {
                self.hang_up();
                return Err(failure);
            }
            if keeps {
                began = Instant::now();
            }
        }
        let Some(connection) = &mut self.connection else { return Err(Failure::Other) };
        let result = match self.shared.load.mode {
            Mode::Connect => Ok(Answered::default()),
            Mode::Http | Mode::HttpKeepAlive => {
                let exchange = connection.request(&self.shared.request, &self.shared.buffer);
                self.patience.over(exchange).await.unwrap_or(Err(Failure::TimedOut))
            }
        };
        if !keeps || !result.is_ok_and(|answer| answer.keeps) {
            self.hang_up();
        }
        result.map(|answer| (began, answer))
    }

    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            let segments = connection.abort();
            self.shared.tally(|tally| tally.add_connection(segments));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hang_up();
        if let Some(since) = self.waits_since {
            self.shared.tally(|tally| tally.given_up(since.elapsed()));
        }
        let time = self.until.max(self.shared.end.min(Instant::now())) - self.shared.start;
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let rate = per_second(self.answered as f64, time);
        self.shared.tally(|tally| tally.rate += rate);
    }
}
