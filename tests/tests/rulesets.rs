//! Random rulesets with one known killer: the tracer must name that very rule, and no other, ever.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Binding, Lab, LabError, Listening, Side};
use wsltrace_tests::decide;
use wsltrace_tests::rulesets::{MARK, PORT, Ruleset, World};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many rulesets are tried when `WSLTRACE_RULESETS` does not say: half of them of nft, a quarter of each iptables.
const RULESETS: u64 = 300;
/// How many are tried with and without the tracer.
const COMPARED: u64 = 60;
/// How long a client waits for an answer before it counts as none.
const SILENCE: Duration = Duration::from_millis(60);
/// A bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    type Test = fn(&Path) -> Outcome<()>;
    let tests: [(&str, Test); 5] = [
        ("the_killer_is_named_in_random_rulesets_of_nft", |binary| every_killer(binary, World::Nft)),
        ("the_killer_is_named_in_random_rulesets_of_iptables_nft", |binary| every_killer(binary, World::IptablesNft)),
        ("the_killer_is_named_in_random_rulesets_of_iptables_legacy", |binary| every_killer(binary, World::IptablesLegacy)),
        ("the_killer_is_named_for_every_attempt_of_a_flood", every_attempt),
        ("a_connection_ends_with_the_tracer_as_it_does_without", with_and_without),
    ];
    let trial = |(name, test): (&'static str, Test)| Trial::ignorable_test(name, move || decide(name, test));
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().map(trial).collect()).exit();
}

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> Outcome<u64> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(otherwise))
}

/// The first seed, which is printed with the number of rulesets.
#[expect(clippy::print_stdout, reason = "the seed, by which a failure can be repeated")]
fn seed(name: &str, count: u64) -> Outcome<u64> {
    let first = setting("WSLTRACE_SEED", fastrand::u64(..1 << 40))?;
    println!("{name}: {count} seeds from {first}; repeat with WSLTRACE_SEED={first}");
    Ok(first)
}

/// A lab with a server.
fn lab() -> Outcome<Lab> {
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))?;
    lab.keep(server);
    // By default the kernel sends one ICMP error a second to one client, and what it holds back is no rejection.
    lab.wsl.set_sysctl("net.ipv4.icmp_ratelimit", "0")?;
    Ok(lab)
}

fn every_killer(binary: &Path, world: World) -> Outcome<()> {
    let share = if world == World::Nft { 2 } else { 4 };
    let count = setting("WSLTRACE_RULESETS", RULESETS)?.div_ceil(share);
    let first = seed(world.backend(), count)?;
    let lab = lab()?;
    // Something must be there for the rules to be looked at from the beginning.
    load(&lab, world, &world.random(first))?;
    let mut tracer = Some(Tracer::start(binary, &lab)?);
    let mut wrong = Vec::new();
    for seed in first..first + count {
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
        if let Err(error) = one(&lab, tracer, world, &ruleset) {
            wrong.push(format!("seed {seed}: {error}\n{}", ruleset.text));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {count} wrong\n{}", wrong.len(), wrong.join("\n")).into()) }
}

/// What the client sees must not depend on the tracer.
fn with_and_without(binary: &Path) -> Outcome<()> {
    let worlds = [World::Nft, World::IptablesNft, World::IptablesLegacy];
    let first = seed("with and without", COMPARED)?;
    let mut differ = Vec::new();
    for world in worlds {
        let lab = lab()?;
        let rulesets: Vec<Ruleset> = (first..first + COMPARED / 3).map(|seed| world.random(seed)).collect();
        let results = || rulesets.iter().map(|ruleset| result(&lab, world, ruleset)).collect::<Outcome<Vec<_>>>();
        let without = results()?;
        let tracer = Tracer::start(binary, &lab)?;
        let with = results()?;
        drop(tracer);
        let both = without.iter().zip(&with).zip(&rulesets).filter(|((without, with), _)| without != with);
        differ.extend(both.map(|((without, with), ruleset)| format!("{without} without, {with} with:\n{}", ruleset.text)));
    }
    if differ.is_empty() { Ok(()) } else { Err(differ.join("\n").into()) }
}

/// What a client sees of a ruleset, and when its killer is taken away.
fn result(lab: &Lab, world: World, ruleset: &Ruleset) -> Outcome<String> {
    load(lab, world, ruleset)?;
    let killed = seen(lab)?;
    let open =
        Ruleset { text: ruleset.text.split_inclusive('\n').filter(|line| !line.contains(MARK)).collect(), ..ruleset.clone() };
    load(lab, world, &open)?;
    Ok(format!("{killed}, then {}", seen(lab)?))
}

/// How a connection attempt ends within a moment.
fn seen(lab: &Lab) -> Outcome<String> {
    let attempt = || -> std::io::Result<String> {
        let socket = connect()?;
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut waiting, PollTimeout::try_from(SILENCE).map_err(std::io::Error::other)?)? == 0 {
            return Ok("no answer".to_owned());
        }
        Ok(socket.take_error()?.map_or_else(|| "connected".to_owned(), |error| error.to_string()))
    };
    Ok(lab.side(Side::Client)?.run(|| attempt().map_err(LabError::io("connect")))?)
}

/// The kernel traces a hundred packets a second: the rest is to be named by these, and said to be inferred.
fn every_attempt(binary: &Path) -> Outcome<()> {
    const ATTEMPTS: usize = 400;
    let lab = Lab::new(None)?;
    let rule = format!("tcp dport {PORT} counter drop comment \"{MARK}\"");
    nft(&lab, &format!("table inet t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}"))?;
    let handle = handle_of_killer(&lab)?;
    let tracer = Tracer::start(binary, &lab)?;
    let connect = || -> std::io::Result<Vec<Socket>> { (0..ATTEMPTS).map(|_| connect()).collect() };
    let clients = lab.side(Side::Client)?.run(|| connect().map_err(LabError::io("connect")))?;
    for _ in &clients {
        let journey = tracer.journey()?;
        let confidence = journey["diagnosis"]["confidence"].as_str().unwrap_or_default();
        if journey["rule"]["handle"] != handle || !["proved", "inferred"].contains(&confidence) {
            return Err(format!("not rule {handle}: {journey}").into());
        }
    }
    Ok(())
}

/// Puts a ruleset in the place of the one before.
fn load(lab: &Lab, world: World, ruleset: &Ruleset) -> Outcome<()> {
    match world {
        World::Nft => nft(lab, &format!("flush ruleset\n{}", ruleset.text)).map(drop),
        World::IptablesNft => tool(lab, "iptables-nft-restore", &[], &ruleset.text).map(drop),
        World::IptablesLegacy => tool(lab, "iptables-legacy-restore", &[], &ruleset.text).map(drop),
    }
}

/// How the killer is to be named: by its handle, or by its number and text; by none of them when it is a policy.
fn name_of_killer(lab: &Lab, world: World, ruleset: &Ruleset) -> Outcome<(Value, Value, Option<String>)> {
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

fn one(lab: &Lab, tracer: &Tracer, world: World, ruleset: &Ruleset) -> Outcome<()> {
    let (handle, number, text) = name_of_killer(lab, world, ruleset)?;
    let client = lab.side(Side::Client)?.run(|| connect().map_err(LabError::io("connect")))?;
    let journey = tracer.journey()?;
    let port = client.local_addr()?.as_socket().map(|address| address.port());
    let rule = &journey["rule"];
    let (family, table, chain) = &ruleset.place;
    let (outcome, verdict) = if ruleset.rejects { ("rejected", "reject") } else { ("dropped", "drop") };
    let text = text.map_or_else(|| rule["text"].clone(), Value::from);
    let expected = [
        ("flow.source_port", &journey["flow"]["source_port"], Value::from(port)),
        ("outcome", &journey["outcome"], outcome.into()),
        ("rule.backend", &rule["backend"], world.backend().into()),
        ("rule.family", &rule["family"], (*family).into()),
        ("rule.table", &rule["table"], table.as_str().into()),
        ("rule.chain", &rule["chain"], chain.as_str().into()),
        ("rule.handle", &rule["handle"], handle),
        ("rule.number", &rule["number"], number),
        ("rule.text", &rule["text"], text),
        ("rule.verdict", &rule["verdict"], verdict.into()),
        ("rule.comment", &rule["comment"], (!ruleset.policy).then_some(MARK).into()),
        ("diagnosis.confidence", &journey["diagnosis"]["confidence"], "proved".into()),
    ];
    let wrong =
        expected.iter().filter(|(_, got, want)| *got != want).map(|(what, got, want)| format!("{what} is {got}, not {want}"));
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// Sends one SYN and does not wait. The socket keeps the port from being used again as long as it lives.
fn connect() -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let target = SocketAddr::new(Lab::wsl_address(false), PORT);
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn nft(lab: &Lab, text: &str) -> Outcome<String> {
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

fn handle_of_killer(lab: &Lab) -> Outcome<u64> {
    let listed = nft(lab, "list ruleset")?;
    handle_of(listed.lines().find(|line| line.contains(MARK)).ok_or("the killer is not listed")?)
}

/// The handle behind a rule that nft lists.
fn handle_of(line: &str) -> Outcome<u64> {
    let (_, handle) = line.rsplit_once("# handle ").ok_or("a rule is listed without a handle")?;
    Ok(handle.trim().parse()?)
}

/// The real binary on the lab; dropping it ends it.
struct Tracer {
    child: Child,
    lines: Receiver<String>,
}

impl Tracer {
    fn start(binary: &Path, lab: &Lab) -> Outcome<Self> {
        let arguments = ["--json", "--port", &PORT.to_string(), "--netns"];
        let mut child = Command::new(binary).args(arguments).arg(lab.wsl.path()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("the tracer has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let tracer = Self { child, lines };
        let armed: Value = serde_json::from_str(&tracer.lines.recv_timeout(PATIENCE)?)?;
        if armed["type"] == "armed" { Ok(tracer) } else { Err(format!("not armed: {armed}").into()) }
    }

    fn journey(&self) -> Outcome<Value> {
        loop {
            let line: Value = serde_json::from_str(&self.lines.recv_timeout(PATIENCE)?)?;
            // The first attempt of each connection is the one that is asked about.
            if line["type"] == "journey" && line["attempt"] == 1 {
                return Ok(line);
            }
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It is our own child and not yet waited for, so the number is still its.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
