//! `wsltrace bench`: what each way to a server costs; and the server that belongs to it.

mod descriptors;
mod windows;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use super::signals::{Endings, until_ended};
use crate::bench::attempt::Mode;
use crate::bench::doubts::{no_port, told_of_paths};
use crate::bench::hlog;
use crate::bench::result::Bench;
use crate::bench::rounds::{Measurement, Plan, drawn_seed};
use crate::bench::serve::Server;
use crate::bench::spoilers::{Place, Reading};
use crate::bench::target::{Resolved, resolve};
use crate::bench::trace::Tracing;
use crate::causes::reason;
use crate::cli::{BenchArgs, BenchMode, KeepAlive};
use crate::evidence::namespaces_behind;
use crate::export::bench_page;
use crate::kernel::containers::Behind;
use crate::kernel::netns::Netns;
use crate::output::{Shown, TextOptions, Verbosity, bench, bench_comparison, bench_csv, tell};

/// How often the server looks whether its queue was too short.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Parts of the whole on the bar.
const PARTS: u64 = 1000;

/// Measures, or serves.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.serve {
        Some(address) => runtime.block_on(serve(address, args.payload)),
        None if args.from_windows => windows::measure(args),
        None => runtime.block_on(measure(args)),
    }
}

async fn serve(address: SocketAddr, payload: usize) -> Result<(), Failure> {
    descriptors::raise(0)?;
    let server = Server::bind(address, payload)
        .map_err(|error| Failure::new(format!("cannot listen on {address}: {}", reason(&error))))?;
    let line = format!("serving {payload} bytes on {}; Ctrl-C ends it", server.address()?);
    tell(&line);
    let mut before = Reading::take(vec![Place::here(Netns::current()?)])?;
    let mut endings = Endings::catch()?;
    let (mut running, mut interrupted) = (pin!(server.run()), pin!(tokio::signal::ctrl_c()));
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            result = &mut running => break result?,
            signal = &mut interrupted => break signal?,
            () = endings.recv() => break,
            _ = look.tick() => before.overflowed()?.iter().for_each(|said| log::warn!("{said}")),
        }
    }
    for warning in before.spoilt_until_now(0)? {
        log::warn!("{warning}");
    }
    Ok(())
}

async fn measure(args: &BenchArgs) -> Result<(), Failure> {
    if args.targets.is_empty() {
        return Err(Failure::usage(
            "nothing to measure: name a target",
            "wsltrace bench --target direct=172.28.20.5:8080 --target localhost=127.0.0.1:8080",
        ));
    }
    if args.mode == BenchMode::Connect && args.keep_alive != KeepAlive::Off {
        return Err(Failure::usage(
            "--mode connect makes a connection an attempt, so --keep-alive has nothing to keep",
            "--mode http, or leave out --keep-alive",
        ));
    }
    let targets = resolve(&args.targets).await.map_err(|message| Failure::usage(message, "wsltrace bench --help"))?;
    let files = Files::make(args)?;
    let plan = plan(args, targets);
    let tracing = descriptors::make_room(&plan, tracing(args, &plan))?;
    let (before, start) = (Reading::take(places()?)?, jiff::Timestamp::now());
    let (measured, interrupted) = watched(&plan, tracing).await?;
    let mut warnings = before.spoilt_until_now(no_port(&measured.paths))?;
    warnings.extend(told_of_paths(&plan, &measured.paths, interrupted));
    files.write(args, &Run { plan: &plan, measured: &measured, interrupted, start }, warnings)
}

/// Where connections may be lost for want of room: here, and in the containers behind it where they can be looked into.
fn places() -> Result<Vec<Place>, Failure> {
    let here = Netns::current()?;
    let behind = if nix::unistd::geteuid().is_root() { namespaces_behind(&here) } else { Ok(Behind::default()) };
    let behind = behind.unwrap_or_else(|error| {
        log::warn!("cannot look for containers, so what spoils the run in one of them is not told: {error}");
        Behind::default()
    });
    Ok(std::iter::once(Place::here(here)).chain(behind.joined.into_iter().map(Place::container)).collect())
}

fn plan(args: &BenchArgs, targets: Vec<Resolved>) -> Plan {
    Plan {
        targets,
        modes: modes(args),
        clients: args.clients,
        duration: args.duration,
        rounds: args.rounds,
        rate: args.rate,
        limit: args.timeout,
        seed: args.seed.unwrap_or_else(drawn_seed),
    }
}

/// A run that is over.
struct Run<'a> {
    plan: &'a Plan,
    measured: &'a Measurement,
    interrupted: bool,
    /// When the first round began.
    start: jiff::Timestamp,
}

/// Where the result goes, and what it is compared to: looked for before anything is measured in vain.
struct Files {
    before: Option<Bench>,
    log: Option<Output>,
    page: Option<Output>,
}

/// A file to be written at the end.
struct Output {
    file: File,
    /// Its path, fit to be shown.
    shown: String,
}

impl Output {
    fn make(what: &str, path: &std::path::Path, force: bool) -> Result<Self, Failure> {
        let existing = crate::recording::file::Existing::by_force(force);
        let file = crate::recording::file::create(path, existing).map_err(|error| super::cannot_make(what, path, &error))?;
        Ok(Self { file, shown: super::progress::shown(path) })
    }

    fn write(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot write to {}: {}", self.shown, reason(&error)));
        self.file.write_all(bytes).map_err(failed)
    }
}

impl Files {
    fn make(args: &BenchArgs) -> Result<Self, Failure> {
        super::distinct(args.hlog.as_deref().into_iter().chain(args.html.as_deref()))?;
        Ok(Self {
            before: args.compare.as_deref().map(earlier).transpose()?,
            log: args.hlog.as_deref().map(|path| Output::make("log", path, args.force)).transpose()?,
            page: args.html.as_deref().map(|path| Output::make("page", path, args.force)).transpose()?,
        })
    }

    fn write(self, args: &BenchArgs, run: &Run, warnings: Vec<String>) -> Result<(), Failure> {
        let paths = &run.measured.paths;
        let result = Bench::of(run.plan, run.measured, run.interrupted, warnings, jiff::Timestamp::now());
        let text = if args.json {
            serde_json::to_string(&result)? + "\n"
        } else if args.csv {
            bench_csv(&result)
        } else {
            let options = TextOptions::detect(Verbosity::Normal, Shown::default());
            let since = self.before.map(|before| bench_comparison(&before, &result, options)).unwrap_or_default();
            bench(&result, options) + &since
        };
        // A disk may be full, or nobody read what is printed, and a run is long: neither takes the other along.
        let printed = super::print(text);
        if let Some(log) = self.log {
            log.write(&hlog::log(paths, run.plan.modes.len() > 1, run.start)?)?;
        }
        if let Some(page) = self.page {
            page.write(bench_page(&result, paths).map_err(io::Error::other)?.as_bytes())?;
        }
        printed
    }
}

/// Measures with a bar on the terminal, until it is done or is to end (Ctrl-C, SIGTERM, SIGHUP); says whether it was ended.
async fn watched(plan: &Plan, tracing: Result<Tracing, String>) -> Result<(Measurement, bool), Failure> {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(PARTS) } else { ProgressBar::hidden() };
    // The template is a constant; without it the bar has the library's own look.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg} {percent:>3} % {eta:>4}") {
        bar.set_style(style);
    }
    let (plan, shown) = (plan.clone(), bar.clone());
    let (measured, interrupted) = until_ended(move |stop| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "parts of a whole"
        )]
        plan.measure(tracing.as_ref().map_err(String::clone), &stop, |name, part| {
            shown.set_position((part * PARTS as f64) as u64);
            shown.set_message(crate::escape::escape(name));
        })
    })
    .await?;
    bar.finish_and_clear();
    Ok((measured?, interrupted))
}

/// What is needed to trace the handshakes; or why it is not done.
fn tracing(args: &BenchArgs, plan: &Plan) -> Result<Tracing, String> {
    if args.no_trace {
        return Err("--no-trace was given".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("tracing needs root: sudo wsltrace bench ...".to_owned());
    }
    let ports: Vec<u16> = plan.targets.iter().map(|target| target.address.port()).collect();
    let netns = Netns::current().map_err(|error| error.to_string())?;
    Tracing::prepare(netns, &ports).map_err(|error| error.to_string())
}

/// What is in a file that somebody names; no result is as long as the most that is read.
fn contents(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    const MOST: u64 = 32 << 20;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    let shown = super::progress::shown(path);
    match read {
        Ok(_) if bytes.len() as u64 > MOST => {
            Err(Failure::new(format!("{shown} is too long for a result: more than {MOST} bytes")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(format!("cannot read {shown}: {}", reason(&error)))),
    }
}

/// An earlier run, from the file that its JSON was written to.
fn earlier(path: &std::path::Path) -> Result<Bench, Failure> {
    let shown = super::progress::shown(path);
    let text = String::from_utf8_lossy(&contents(path)?).into_owned();
    serde_json::from_str(&text).map_err(|error| {
        log::debug!("{shown}: {error}");
        let hint = "make one with: wsltrace bench ... --json > OLD.json";
        let is = if text.trim().is_empty() { "empty, and so " } else { "" };
        Failure {
            message: format!("{shown} is {is}not what `wsltrace bench --json` prints"),
            hint: Some(hint.to_owned()),
            status: 1,
        }
    })
}

fn modes(args: &BenchArgs) -> Vec<Mode> {
    match (args.mode, args.keep_alive) {
        (BenchMode::Connect, _) => vec![Mode::Connect],
        (BenchMode::Http, KeepAlive::On) => vec![Mode::HttpKeepAlive],
        (BenchMode::Http, KeepAlive::Off) => vec![Mode::Http],
        (BenchMode::Http, KeepAlive::Both) => vec![Mode::Http, Mode::HttpKeepAlive],
    }
}
