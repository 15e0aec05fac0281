//! `wsltrace bench --from-windows`: the load runs on Windows, where the ways begin that only exist there.

use std::path::Path;

use super::{Files, Run, plan};
use crate::bench::doubts::told_of_paths;
use crate::bench::target::{Resolved, Target};
use crate::bench::windows::{Answered, WindowsPlan, parse, ways};
use crate::cli::BenchArgs;
use crate::command::Failure;
use crate::kernel::addresses::{list_addresses, outer};
use crate::kernel::check;
use crate::kernel::links::list_links;
use crate::kernel::netns::Netns;
use crate::windows::{InteropError, LIMIT, Windows, WindowsInterop};
use crate::wsl::{self, Wsl};

/// Has Windows measure, or prints with what; or reads what somebody had it measure.
pub(super) fn measure(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(path) = &args.answer {
        let files = Files::make(args)?;
        return told(args, files, read(path)?);
    }
    let wsl = check::Machine::read()?.wsl;
    let interop = WindowsInterop::new(wsl);
    let targets = if args.targets.is_empty() { known(args, wsl, interop)? } else { args.targets.clone() };
    let drawn = WindowsPlan::of(&plan(args, addresses(&targets)?));
    if args.print_script {
        return crate::command::print(drawn.script()?);
    }
    let files = Files::make(args)?;
    let answered = drawn.run(&interop).map_err(|error| unavailable(&error))?;
    told(args, files, answered)
}

fn told(args: &BenchArgs, files: Files, answered: Answered) -> Result<(), Failure> {
    let Answered { plan, measured, mut warnings } = answered;
    warnings.extend(told_of_paths(&plan, &measured.paths, false));
    let start = jiff::Timestamp::now();
    files.write(args, &Run { plan: &plan, measured: &measured, interrupted: false, start }, warnings)
}

/// The answer that the printed script gave.
fn read(path: &Path) -> Result<Answered, Failure> {
    let shown = crate::command::progress::shown(path);
    let bytes = super::contents(path)?;
    parse(&decoded(&bytes)).map_err(|error| Failure {
        message: format!("{shown}: {error}"),
        hint: Some(
            "run what `wsltrace bench --from-windows --print-script` prints in PowerShell, and keep what it answers".to_owned(),
        ),
        status: 1,
    })
}

/// Text as `PowerShell` redirects it to a file: UTF-16 with a mark, or UTF-8.
fn decoded(bytes: &[u8]) -> String {
    match bytes.strip_prefix(&[0xff, 0xfe]) {
        Some(units) => {
            let units: Vec<u16> =
                units.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?))).collect();
            String::from_utf16_lossy(&units)
        }
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The ways to `--port` that are known here.
fn known(args: &BenchArgs, wsl: Wsl, interop: WindowsInterop) -> Result<Vec<Target>, Failure> {
    let Some(port) = args.port else {
        return Err(Failure::usage(
            "nothing to measure: name the server's port, or targets",
            "wsltrace bench --from-windows --port 8080",
        ));
    };
    let netns = Netns::current()?;
    let (links, addresses) = (list_links(&netns)?, list_addresses(&netns)?);
    let mode = wsl::networking_mode(wsl, &links).map(|(mode, _)| mode);
    let address = outer(&addresses, &links).map(|outer| outer.address);
    let windows = Windows::ask(&interop, port, LIMIT);
    if windows.facts().is_none_or(|facts| facts.portproxy.known().is_none()) {
        log::warn!("Windows did not tell of its portproxy entries: name one as a target to have it measured");
    }
    let found = ways(port, mode, address, windows.facts());
    if found.is_empty() {
        return Err(Failure::usage(
            format!("no way from Windows to port {port} is known here: name targets"),
            "wsltrace bench --from-windows --target direct=172.28.20.5:8080",
        ));
    }
    Ok(found)
}

/// Targets by address only: names may mean something else on Windows.
fn addresses(targets: &[Target]) -> Result<Vec<Resolved>, Failure> {
    let mut found: Vec<Resolved> = Vec::new();
    for target in targets {
        let address = target.host.parse().map_err(|_| {
            let host = crate::escape::escape(&target.host);
            Failure::usage(
                format!("{host} is no address: names may mean something else on Windows"),
                "--target relay=127.0.0.1:8080",
            )
        })?;
        let address = std::net::SocketAddr::new(address, target.port);
        if let Some(other) = found.iter().find(|other| other.name == target.name || other.address == address) {
            let message = format!("targets {} and {} have the same name or address", other.name, target.name);
            return Err(Failure::usage(message, "wsltrace bench --help"));
        }
        found.push(Resolved { name: target.name.clone(), host: address.to_string(), address });
    }
    Ok(found)
}

fn unavailable(error: &InteropError) -> Failure {
    Failure {
        message: format!("Windows did not measure: {error}"),
        hint: Some(
            "with --print-script instead: run what it prints in PowerShell on Windows, keep what that answers, and give it back with --answer FILE".to_owned(),
        ),
        status: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_either_powershell_is_read() {
        let text = "{\"error\":\"\u{e9}\"}";
        let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(decoded(&wide), text);
        assert_eq!(decoded(text.as_bytes()), text);
    }
}
