//! Signals that ask a run to end, after which it still writes what it has.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::bench::load::Stop;

/// SIGTERM, and SIGHUP, which comes when the terminal is closed.
pub(super) struct Endings {
    terminate: Signal,
    /// `None` where it was ignored at the start, as nohup has it: then the run is to outlive its terminal.
    hang_up: Option<Signal>,
}

impl Endings {
    /// Catches them from now on.
    pub(super) fn catch() -> io::Result<Self> {
        let hang_up = if is_ignored(libc::SIGHUP) { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { terminate: signal(SignalKind::terminate())?, hang_up })
    }

    /// Waits for one.
    pub(super) async fn recv(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Does the work on a thread of its own, and tells it to stop at the first signal (Ctrl-C, SIGTERM, SIGHUP); gives what came of it, and
/// whether it was told so. It is waited for in either case, so that it can clean up.
pub(super) async fn until_ended<T: Send + 'static>(work: impl FnOnce(Stop) -> T + Send + 'static) -> io::Result<(T, bool)> {
    let mut endings = Endings::catch()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, stop) = watch::channel(false);
    let mut working = tokio::task::spawn_blocking(move || work(stop));
    let done = tokio::select! {
        done = &mut working => done,
        _ = interrupt.recv() => stopped(&tell, working).await,
        () = endings.recv() => stopped(&tell, working).await,
    };
    let was_told = *tell.borrow();
    Ok((done.map_err(io::Error::other)?, was_told))
}

async fn stopped<T>(tell: &watch::Sender<bool>, working: JoinHandle<T>) -> Result<T, JoinError> {
    tell.send_replace(true);
    working.await
}

/// How long after a signal the same may come by another way.
const ECHO: Duration = Duration::from_millis(700);

/// Whether a signal ends the process at once, as if it were not caught: so while nothing else listens to it, because somebody is waited
/// for who does not read our output.
pub(super) struct AtOnce(Arc<AtomicBool>);

impl AtOnce {
    /// From now on they do; make it before the signals are caught.
    pub(super) fn now() -> io::Result<Self> {
        let at_once = Arc::new(AtomicBool::new(true));
        let hang_up = (!is_ignored(libc::SIGHUP)).then_some(libc::SIGHUP);
        for signal in [libc::SIGINT, libc::SIGTERM].into_iter().chain(hang_up) {
            signal_hook::flag::register_conditional_default(signal, at_once.clone())?;
        }
        Ok(Self(at_once))
    }

    /// From now on somebody listens to them.
    pub(super) fn no_longer(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// From soon on they do again. Not at once: a wrapper such as timeout(1) passes Ctrl-C on to us, who have had it from the terminal.
    pub(super) fn soon(self) -> io::Result<()> {
        let wait = move || {
            std::thread::sleep(ECHO);
            self.0.store(true, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("at-once".to_owned()).spawn(wait).map(drop)
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a structure of numbers and a pointer, for which zeros are a valid value.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action this only fills `now`, which is ours.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) } == 0;
    read && now.sa_sigaction == libc::SIG_IGN
}
