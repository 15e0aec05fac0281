//! Rulesets at work: the lab that they are loaded into, SYNs that meet them, and what their killers are called.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Binding, Lab, LabError, Listening, Namespace, Side};

use super::{MARK, Outcome, PORT, Ruleset, Tracer, World};

/// How long a client waits for an answer before it counts as none.
const SILENCE: Duration = Duration::from_millis(60);

/// How long a client that is connected waits to be greeted by the server, which has to be woken for that.
const UNGREETED: Duration = Duration::from_millis(400);

/// A number from the environment.
pub fn setting(name: &str, otherwise: u64) -> Outcome<u64> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(otherwise))
}

/// The first seed, which is printed with the number of rulesets.
#[expect(clippy::print_stdout, reason = "the seed, by which a failure can be repeated")]
pub fn seed(name: &str, count: u64) -> Outcome<u64> {
    let first = setting("WSLTRACE_SEED", fastrand::u64(..1 << 40))?;
    println!("{name}: {count} seeds from {first}; repeat with WSLTRACE_SEED={first}");
    Ok(first)
}

/// Plays the rulesets of these seeds under a tracer, and gives what came of each; an error is told with its ruleset.
pub fn each<T>(
    binary: &Path,
    world: World,
    seeds: Range<u64>,
    one: impl Fn(&Lab, &Tracer, &Ruleset) -> Outcome<T>,
) -> Outcome<Vec<Result<T, String>>> {
    let lab = lab()?;
    // Something must be there for the rules to be looked at from the beginning.
    load(&lab, world, &world.random(seeds.start))?;
    let mut tracer = Some(Tracer::start(binary, &lab)?);
    let mut results = Vec::new();
    for seed in seeds {
        let ruleset = world.random(seed);
        load(&lab, world, &ruleset)?;
        if world == World::IptablesLegacy {
            // The old iptables tells nobody that its rules changed: they are looked at once a second.
            drop(tracer.take());
        }
        let tracer = match &mut tracer {
            Some(tracer) => tracer,
            none => none.insert(Tracer::start(binary, &lab)?),
        };
        results.push(one(&lab, tracer, &ruleset).map_err(|error| format!("seed {seed}: {error}\n{}", ruleset.text)));
    }
    Ok(results)
}

/// A lab with a server.
pub fn lab() -> Outcome<Lab> {
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))?;
    lab.keep(server);
    // By default the kernel sends one ICMP error a second to one client, and what it holds back is no rejection.
    lab.wsl.set_sysctl("net.ipv4.icmp_ratelimit", "0")?;
    Ok(lab)
}

/// Puts a ruleset in the place of the one before.
pub fn load(lab: &Lab, world: World, ruleset: &Ruleset) -> Outcome<()> {
    match world {
        World::Nft => nft(lab, &format!("flush ruleset\n{}", ruleset.text)).map(drop),
        World::IptablesNft => tool(lab, "iptables-nft-restore", &[], &ruleset.text).map(drop),
        World::IptablesLegacy => tool(lab, "iptables-legacy-restore", &[], &ruleset.text).map(drop),
    }
}

/// How the killer is to be named: by its handle, or by its number and text; by none of them when it is a policy.
pub fn name_of_killer(lab: &Lab, world: World, ruleset: &Ruleset) -> Outcome<(Value, Value, Option<String>)> {
    match world {
        _ if ruleset.policy => Ok((Value::Null, Value::Null, Some("policy drop".to_owned()))),
        World::Nft => Ok((handle_of_killer(lab)?.into(), Value::Null, None)),
        World::IptablesNft => {
            // nft does not print the comments of iptables; the rules stand in the same order.
            let (number, _) = number_of_killer(lab, "iptables-nft-save", ruleset)?;
            let (family, table, chain) = &ruleset.place;
            let listed = nft(lab, &format!("list chain {family} {table} {chain}"))?;
            let rules: Vec<&str> = listed.lines().filter(|line| line.starts_with("\t\t") && line.contains("# handle")).collect();
            let rule = rules.get(number - 1).ok_or("nft lists fewer rules than iptables")?;
            Ok((handle_of(rule)?.into(), Value::Null, None))
        }
        World::IptablesLegacy => {
            let (number, text) = number_of_killer(lab, "iptables-legacy-save", ruleset)?;
            Ok((Value::Null, number.into(), Some(text)))
        }
    }
}

/// The killer's number in its chain, from 1, and its text.
fn number_of_killer(lab: &Lab, save: &str, ruleset: &Ruleset) -> Outcome<(usize, String)> {
    let saved = tool(lab, save, &["-t", &ruleset.place.1], "")?;
    let of_chain = format!("-A {} ", ruleset.place.2);
    let mut rules = saved.lines().filter(|line| line.starts_with(&of_chain)).enumerate();
    let (index, text) = rules.find(|(_, line)| line.contains(MARK)).ok_or("the killer is not listed")?;
    Ok((index + 1, text.to_owned()))
}

/// Sends one SYN and does not wait. The socket keeps the port from being used again as long as it lives.
pub fn connect() -> std::io::Result<Socket> {
    connect_to(Lab::wsl_address(false))
}

fn connect_to(address: IpAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let target = SocketAddr::new(address, PORT);
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// How a connection attempt ends within a moment.
pub fn seen(lab: &Lab) -> Outcome<String> {
    seen_from(lab.side(Side::Client)?, Lab::wsl_address(false))
}

/// How a connection attempt from a namespace to an address ends within a moment.
pub fn seen_from(namespace: &Namespace, address: IpAddr) -> Outcome<String> {
    let attempt = || -> std::io::Result<String> {
        let socket = connect_to(address)?;
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut waiting, PollTimeout::try_from(SILENCE).map_err(std::io::Error::other)?)? == 0 {
            return Ok("no answer".to_owned());
        }
        Ok(socket.take_error()?.map_or_else(|| "connected".to_owned(), |error| error.to_string()))
    };
    Ok(namespace.run(|| attempt().map_err(LabError::io("connect")))?)
}

/// What becomes of a connection from the client that is made: whether the server, which greets, gets to know of it within a moment.
pub fn greeted(lab: &Lab) -> Outcome<String> {
    let attempt = || -> std::io::Result<String> {
        let mut socket = connect_to(Lab::wsl_address(false))?;
        let ready = |socket: &Socket, what, patience| -> std::io::Result<bool> {
            let mut waiting = [PollFd::new(socket.as_fd(), what)];
            Ok(poll(&mut waiting, PollTimeout::try_from(patience).map_err(std::io::Error::other)?)? > 0)
        };
        if !ready(&socket, PollFlags::POLLOUT, UNGREETED)? {
            return Err(std::io::Error::other("the SYN was not let in"));
        }
        // It may be made and refused at once.
        if let Some(error) = socket.take_error()? {
            return Ok(error.to_string());
        }
        if !ready(&socket, PollFlags::POLLIN, UNGREETED)? {
            return Ok("no answer".to_owned());
        }
        Ok(socket.read(&mut [0]).map_or_else(|error| error.to_string(), |_| "connected".to_owned()))
    };
    Ok(lab.side(Side::Client)?.run(|| attempt().map_err(LabError::io("connect")))?)
}

/// Gives nft a text; what it prints.
pub fn nft(lab: &Lab, text: &str) -> Outcome<String> {
    tool(lab, "nft", &["-a", "-f", "-"], text)
}

/// Runs a firewall's program in the traced namespace with this on its standard input; gives what it prints.
fn tool(lab: &Lab, program: &str, arguments: &[&str], text: &str) -> Outcome<String> {
    let run = || -> std::io::Result<(bool, String, String)> {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.success(), text(output.stdout), text(output.stderr)))
    };
    match lab.wsl.run(|| run().map_err(LabError::io("run the firewall's program")))? {
        (true, stdout, _) => Ok(stdout),
        (false, _, stderr) => Err(format!("{program} refuses the ruleset: {stderr}").into()),
    }
}

/// The killer's handle.
pub fn handle_of_killer(lab: &Lab) -> Outcome<u64> {
    let listed = nft(lab, "list ruleset")?;
    handle_of(listed.lines().find(|line| line.contains(MARK)).ok_or("the killer is not listed")?)
}

/// The handle behind a rule that nft lists.
fn handle_of(line: &str) -> Outcome<u64> {
    let (_, handle) = line.rsplit_once("# handle ").ok_or("a rule is listed without a handle")?;
    Ok(handle.trim().parse()?)
}
