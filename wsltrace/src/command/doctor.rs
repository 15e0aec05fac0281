//! `wsltrace doctor --port N`: the set-up examined before any packet comes.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::cli::DoctorArgs;
use crate::doctor::{Examination, Facts, Redactor, WslFacts, look_at_firewalls, look_at_linux};
use crate::kernel::check::{self, Machine};
use crate::kernel::links::list_links;
use crate::kernel::netns::Netns;
use crate::kernel::programs::Programs;
use crate::output::{Shown, TextOptions, Verbosity, examination, script};
use crate::windows::{self, Windows, WindowsInterop};
use crate::wsl::{self, Wsl};

/// How often the line that says what is waited for moves.
const STEADY: Duration = Duration::from_millis(120);

/// Examines; gives the exit status.
pub fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let netns = args.netns.as_deref();
    let port = args.port.ok_or_else(|| super::ports::missing(netns, "wsltrace doctor"))?;
    let machine = Machine::read()?;
    let netns = super::netns(netns)?;
    let facts = gather(&netns, port, &machine)?;
    let mut examined = Examination::of(&facts, jiff::Timestamp::now());
    if args.redact {
        examined = Redactor::of(&facts).examination(&examined)?;
    }
    let text = if args.fix {
        script(&examined)
    } else if args.json {
        serde_json::to_string(&examined)? + "\n"
    } else {
        examination(&examined, TextOptions::detect(Verbosity::Normal, Shown::default()), args.verbose)
    };
    // 1 would say that something will fail, and nobody has read what.
    super::print(text).map_err(|failure| Failure { status: 3, ..failure })?;
    Ok(examined.status())
}

/// Asks Linux and Windows at the same time; Windows takes seconds.
fn gather(netns: &Netns, port: u16, machine: &Machine) -> Result<Facts, Failure> {
    // Another namespace is a container's or a lab's: WSL's network is the one that this process is in.
    let wsl = if Netns::current()? == *netns { machine.wsl } else { Wsl::No };
    let links = list_links(netns)?;
    std::thread::scope(|scope| {
        let windows = scope.spawn(|| Windows::ask(&WindowsInterop::new(wsl), port, windows::LIMIT));
        let facts = WslFacts {
            wsl,
            version: wsl::version(wsl),
            mode: wsl::networking_mode(wsl, &links),
            // Not every distro has one.
            conf: fs::read_to_string("/etc/wsl.conf").ok().filter(|_| wsl == Wsl::Two),
        };
        let firewalls = look_at_firewalls(netns);
        let linux = look_at_linux(netns, port, machine, &firewalls);
        let waiting = (!windows.is_finished() && io::stderr().is_terminal()).then(waiting);
        let windows = windows.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Some(line) = waiting {
            line.finish_and_clear();
        }
        // Who is no root here may be it for the tracer.
        let as_root = Machine { root: true, capabilities: u64::MAX, ..machine.clone() };
        let untraceable = check::problems(&as_root, "");
        Ok(Facts { port, linux, firewalls, untraceable, programs: Programs::look().within(netns), wsl: facts, windows })
    })
}

/// A line on the terminal while Windows works.
fn waiting() -> ProgressBar {
    let line = ProgressBar::new_spinner().with_message("asking Windows (PowerShell), which takes some seconds");
    // The template is a constant; without it the line has the library's own look.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        line.set_style(style);
    }
    line.enable_steady_tick(STEADY);
    line
}
