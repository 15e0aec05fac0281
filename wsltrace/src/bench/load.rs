//! The load: so many clients, each making one attempt after the other, or each when it is its turn at a fixed rate.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::attempt::{Connection, Failure, Mode, request};
use super::tally::Tally;
use super::target::Resolved;

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

/// What all clients of a run share.
struct Shared {
    load: Load,
    target: Resolved,
    request: Vec<u8>,
    start: Instant,
    end: Instant,
    /// The number of the next attempt, where there is a rate.
    next: AtomicU64,
    turns: Semaphore,
    stop: Arc<AtomicBool>,
    tallies: Vec<Mutex<Tally>>,
}

/// Locks are held for some stores to memory only; more of them than processors do not wait for each other.
const TALLIES: usize = 8;

/// Makes attempts until the time is up, or `stop` is set.
pub async fn run(load: &Load, target: &Resolved, stop: &Arc<AtomicBool>) -> io::Result<Tally> {
    let start = Instant::now();
    let shared = Arc::new(Shared {
        request: request(&target.host, load.mode == Mode::HttpKeepAlive),
        target: target.clone(),
        start,
        end: start + load.duration,
        next: AtomicU64::new(0),
        turns: Semaphore::new(0),
        stop: stop.clone(),
        tallies: (0..TALLIES).map(|_| Mutex::default()).collect(),
        load: load.clone(),
    });
    let clock = load.rate.map(|rate| tokio::spawn(give_turns(shared.clone(), rate)));
    let clients: Vec<_> = (0..load.clients as usize).map(|number| tokio::spawn(client(shared.clone(), number))).collect();
    for client in clients {
        client.await.map_err(io::Error::other)?;
    }
    if let Some(clock) = clock {
        clock.await.map_err(io::Error::other)??;
    }
    let mut all = Tally::default();
    for tally in &shared.tallies {
        all.add(&tally.lock().unwrap_or_else(PoisonError::into_inner), true);
    }
    if let Some(rate) = load.rate.filter(|_| !stop.load(Ordering::Relaxed)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of attempts, never negative")]
        let due = (load.duration.as_secs_f64() * rate) as u64;
        all.not_begun = due.saturating_sub(shared.next.load(Ordering::Relaxed));
    }
    all.lasted = start.elapsed();
    Ok(all)
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    fn tally<T>(&self, number: usize, change: impl FnOnce(&mut Tally) -> T) -> Option<T> {
        let tally = self.tallies.get(number % TALLIES)?;
        Some(change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// One client: waits for its turn, where there are turns, makes an attempt, and counts what came of it.
async fn client(shared: Arc<Shared>, number: usize) {
    let mut kept = None;
    while !shared.is_over() {
        let intended = match shared.load.rate {
            None => Instant::now(),
            Some(rate) => {
                // Closed when the time is up.
                let Ok(turn) = shared.turns.acquire().await else { break };
                turn.forget();
                #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
                let number = shared.next.fetch_add(1, Ordering::Relaxed) as f64;
                shared.start + Duration::from_secs_f64(number / rate)
            }
        };
        let began = Instant::now();
        let result = attempt(&shared, &mut kept, number).await;
        let ended = Instant::now();
        shared.tally(number, |tally| match result {
            Ok(()) => tally.answered(ended - intended.min(began), ended - began),
            Err(failure) => tally.failed(failure),
        });
    }
    if let Some(connection) = kept.take() {
        let segments = connection.abort();
        shared.tally(number, |tally| tally.add_segments(segments));
    }
}

async fn attempt(shared: &Shared, kept: &mut Option<Connection>, number: usize) -> Result<(), Failure> {
    let (address, limit) = (shared.target.address, shared.load.limit);
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address, limit).await?,
    };
    let result = match shared.load.mode {
        Mode::Connect => Ok(false),
        Mode::Http | Mode::HttpKeepAlive => connection.request(&shared.request, limit).await,
    };
    if result == Ok(true) && shared.load.mode == Mode::HttpKeepAlive {
        *kept = Some(connection);
    } else {
        let segments = connection.abort();
        shared.tally(number, |tally| tally.add_segments(segments));
    }
    result.map(drop)
}

/// A descriptor that the runtime can wait for.
struct Watched(TimerFd);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Gives a turn whenever one is due. The runtime's own timers count in milliseconds, which would be most of what is measured.
async fn give_turns(shared: Arc<Shared>, rate: f64) -> io::Result<()> {
    let result = turns(&shared, rate).await;
    // Clients that wait for a turn learn that there is none.
    shared.turns.close();
    result
}

async fn turns(shared: &Shared, rate: f64) -> io::Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    // SAFETY: the timer is owned by what is made here, and its descriptor stays open and the same until that is dropped.
    let timer = unsafe { AsyncFd::register_with_interest(Watched(timer), Interest::READABLE) }?;
    let mut given = 0_u64;
    while !shared.is_over() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of attempts, never negative")]
        let due = (shared.start.elapsed().as_secs_f64() * rate) as u64 + 1;
        let new = usize::try_from(due.saturating_sub(given)).map_err(io::Error::other)?;
        // More than can be held have nobody to take them.
        let room = Semaphore::MAX_PERMITS - shared.turns.available_permits();
        shared.turns.add_permits(new.min(room));
        given = due;
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let next = shared.start + Duration::from_secs_f64(given as f64 / rate);
        let wait = next.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        timer.get_ref().0.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
        let mut ready = timer.readable().await?;
        ready.clear_ready();
        match timer.get_ref().0.wait() {
            Ok(()) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
