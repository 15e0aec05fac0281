//! `wsltrace doctor --port N`: the set-up examined before any packet comes.

use std::io::{self, Write as _};

use super::Failure;
use crate::cli::DoctorArgs;
use crate::doctor::{Examination, Facts, Redactor, WslFacts, look_at_linux};
use crate::kernel::check::Machine;
use crate::kernel::links::list_links;
use crate::kernel::netns::Netns;
use crate::output::{Shown, TextOptions, Verbosity, examination, script};
use crate::wsl::{self, Wsl};

/// Examines; gives the exit status.
pub fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let port = args.port.ok_or_else(|| Failure::usage("the port of the server is missing", "wsltrace doctor --port 8080"))?;
    let machine = Machine::read()?;
    let netns = args.netns.as_deref().map_or_else(Netns::current, Netns::open)?;
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
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(examined.status()),
    }
}

fn gather(netns: &Netns, port: u16, machine: &Machine) -> Result<Facts, Failure> {
    // Another namespace is a container's or a lab's: WSL's network is the one that this process is in.
    let wsl = if Netns::current()? == *netns { machine.wsl } else { Wsl::No };
    let links = list_links(netns)?;
    let facts = WslFacts { wsl, version: wsl::version(wsl), mode: wsl::networking_mode(wsl, &links) };
    Ok(Facts { port, linux: look_at_linux(netns, port, machine), wsl: facts })
}
