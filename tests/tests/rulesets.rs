//! Random rulesets with one known killer: the tracer must name that very rule, and no other, ever.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use wsltrace::lab::{Binding, Lab, LabError, Listening, Side};
use wsltrace_tests::decide;
use wsltrace_tests::rulesets::{MARK, PORT, Ruleset, random};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many rulesets are tried when `WSLTRACE_RULESETS` does not say.
const RULESETS: u64 = 300;
/// A bound for what hangs, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let (one, many) = ("the_killer_is_named_in_random_rulesets", "the_killer_is_named_for_every_attempt_of_a_flood");
    let trials = vec![
        Trial::ignorable_test(one, move || decide(one, every_killer)),
        Trial::ignorable_test(many, move || decide(many, every_attempt)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> Outcome<u64> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(otherwise))
}

#[expect(clippy::print_stdout, reason = "the seed, by which a failure can be repeated")]
fn every_killer(binary: &Path) -> Outcome<()> {
    let count = setting("WSLTRACE_RULESETS", RULESETS)?;
    let first = setting("WSLTRACE_SEED", fastrand::u64(..1 << 40))?;
    println!("seeds {first} to {}; repeat with WSLTRACE_SEED={first} WSLTRACE_RULESETS={count}", first + count - 1);
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, PORT))?;
    lab.keep(server);
    // By default the kernel sends one ICMP error a second to one client, and what it holds back is no rejection.
    lab.wsl.set_sysctl("net.ipv4.icmp_ratelimit", "0")?;
    // Something must be there for the trace to be on from the beginning.
    nft(&lab, "table inet empty { }")?;
    let tracer = Tracer::start(binary, &lab)?;
    let mut wrong = Vec::new();
    for seed in first..first + count {
        let ruleset = random(seed);
        if let Err(error) = one(&lab, &tracer, &ruleset) {
            wrong.push(format!("seed {seed}: {error}\n{}", ruleset.text));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {count} wrong\n{}", wrong.len(), wrong.join("\n")).into()) }
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

fn one(lab: &Lab, tracer: &Tracer, ruleset: &Ruleset) -> Outcome<()> {
    nft(lab, &format!("flush ruleset\n{}", ruleset.text))?;
    let handle = if ruleset.policy { None } else { Some(handle_of_killer(lab)?) };
    let client = lab.side(Side::Client)?.run(|| connect().map_err(LabError::io("connect")))?;
    let journey = tracer.journey()?;
    let port = client.local_addr()?.as_socket().map(|address| address.port());
    let rule = &journey["rule"];
    let (family, table, chain) = &ruleset.place;
    let (outcome, verdict) = if ruleset.rejects { ("rejected", "reject") } else { ("dropped", "drop") };
    let expected = [
        ("flow.source_port", &journey["flow"]["source_port"], Value::from(port)),
        ("outcome", &journey["outcome"], outcome.into()),
        ("rule.family", &rule["family"], (*family).into()),
        ("rule.table", &rule["table"], table.as_str().into()),
        ("rule.chain", &rule["chain"], chain.as_str().into()),
        ("rule.handle", &rule["handle"], handle.into()),
        ("rule.verdict", &rule["verdict"], verdict.into()),
        ("rule.comment", &rule["comment"], handle.map(|_| MARK).into()),
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
    let run = || -> std::io::Result<(bool, String, String)> {
        let mut child = Command::new("nft")
            .args(["-a", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.success(), text(output.stdout), text(output.stderr)))
    };
    match lab.wsl.run(|| run().map_err(LabError::io("run nft")))? {
        (true, stdout, _) => Ok(stdout),
        (false, _, stderr) => Err(format!("nft refuses the ruleset: {stderr}").into()),
    }
}

fn handle_of_killer(lab: &Lab) -> Outcome<u64> {
    let listed = nft(lab, "list ruleset")?;
    let line = listed.lines().find(|line| line.contains(MARK)).ok_or("the killer is not listed")?;
    let (_, handle) = line.rsplit_once("# handle ").ok_or("the killer is listed without a handle")?;
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
