//! Firewalls with a manager of their own: its rule is known as its, and the command printed for it opens the port. The real
//! programs run in a copy of this machine's root; `cargo xtask test` downloads them.

use std::error::Error;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use wsltrace::kernel::netns::Netns;
use wsltrace::lab::{Attempt, Binding, Lab, LabError, Listening, Manner, PORT, Seen, Side, Tracer};
use wsltrace::probe::Detail;
use wsltrace::simulate::{End, Machine, Packet, Prediction, Reader, Way, predict, read_by};
use wsltrace_tests::guest::Guest;

/// How long the client waits for what is dropped: longer than the tracer needs to see it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A manager with its usual settings, which let nothing in but what is named.
struct Manager {
    /// As the report calls it.
    owner: &'static str,
    code: &'static str,
    /// How it is brought up.
    start: &'static [&'static str],
    /// Whether the server is in a container, behind this machine.
    behind: bool,
    /// What must be in the first command that the report tells to type.
    remedy: &'static str,
}

const UFW: Manager =
    Manager { owner: "ufw", code: "firewall_drop", start: &["ufw --force enable"], behind: false, remedy: "ufw allow 8080/tcp" };

const UFW_BEHIND: Manager = Manager { behind: true, remedy: "ufw route allow", ..UFW };

/// Ends when firewalld answers on the bus; it is killed with its copy of the root if it never does.
const FIREWALLD_IS_THERE: &str = r#"timeout 60 python3 -c "
from gi.repository import Gio, GLib
loop = GLib.MainLoop()
Gio.bus_watch_name(Gio.BusType.SYSTEM, 'org.fedoraproject.FirewallD1', 0, lambda *_: loop.quit(), None)
loop.run()""#;

const FIREWALLD: Manager = Manager {
    owner: "firewalld",
    code: "firewall_reject",
    start: &[
        "mkdir -p /run/dbus && dbus-uuidgen --ensure && dbus-daemon --system --fork",
        "firewalld --nofork --nopid >/dev/null 2>&1 &",
        FIREWALLD_IS_THERE,
        "firewall-cmd --state",
    ],
    behind: false,
    remedy: "--add-port=8080/tcp",
};

const FIREWALLD_BEHIND: Manager = Manager { behind: true, remedy: "--new-policy=", ..FIREWALLD };

/// It lets nothing through but what it publishes only where it was it that turned forwarding on. The daemon says on a pipe that it listens, after it has made its rules; it takes the bridge of the lab for its own.
const DOCKER: Manager = Manager {
    owner: "docker",
    code: "firewall_drop",
    start: &[
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "mkfifo /run/ready",
        "dockerd --storage-driver vfs 2>&1 | { grep --max-count=1 'API listen' >/run/ready; cat >/dev/null; } &",
        "timeout 60 grep 'API listen' /run/ready",
    ],
    behind: true,
    remedy: "iptables-nft -I DOCKER-USER",
};

fn main() {
    let trials = [
        ("ufw_is_told_to_open_the_port", UFW),
        ("ufw_is_told_to_let_the_port_through", UFW_BEHIND),
        ("firewalld_is_told_to_open_the_port", FIREWALLD),
        ("firewalld_is_told_to_let_the_port_through", FIREWALLD_BEHIND),
        ("dockers_chain_for_users_rules_lets_the_port_through", DOCKER),
    ];
    let trials = trials.map(|(name, manager)| Trial::ignorable_test(name, move || decide(name, &manager)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

#[expect(clippy::print_stdout, reason = "the line that continuous integration counts")]
fn decide(name: &str, manager: &Manager) -> Result<Completion, Failed> {
    let Some(packages) = std::env::var_os("WSLTRACE_MANAGERS").map(PathBuf::from) else {
        let why = "WSLTRACE_MANAGERS names no directory with their packages";
        println!("SKIP: {name}: {why}");
        return Ok(Completion::ignored_with(why));
    };
    wsltrace_tests::decide(name, |binary| opens(binary, &packages, manager))
}

fn opens(binary: &Path, packages: &Path, manager: &Manager) -> Result<(), Box<dyn Error>> {
    let mut lab = Lab::new(manager.behind.then_some(Side::Container))?;
    let side = if manager.behind { Side::Container } else { Side::Wsl };
    lab.keep(Listening::accepting(lab.side(side)?, Binding::new(Ipv6Addr::UNSPECIFIED, PORT).dual_stack())?);
    let targets = if manager.behind {
        lab.wsl.set_sysctl("net.ipv4.ip_forward", "1")?;
        let by = format!("ip route add {} via {}", Lab::container_address(), Lab::wsl_address(false));
        lab.client.run(|| shell(&by))?;
        vec![Lab::container_address()]
    } else {
        vec![Lab::wsl_address(false), Lab::wsl_address(true)]
    };
    let attempts: Vec<Attempt> = targets
        .into_iter()
        .map(|address| Attempt { target: (address, PORT).into(), from_port: 0, manner: Manner::Listens, patience: PATIENCE })
        .collect();
    let mut guest = Guest::new(&lab.wsl, packages)?;
    for attempt in &attempts {
        expect(attempt.make(&lab.client)?.seen == Seen::Connected, "the server is reached without a firewall", &attempt)?;
    }
    for line in manager.start {
        guest.run(line)?;
    }
    for attempt in &attempts {
        foretold(binary, &lab, manager, *attempt, false)?;
    }
    let remedies = attempts.iter().map(|attempt| remedy(binary, &lab, manager, *attempt)).collect::<Result<Vec<_>, _>>()?;
    // One opens the port in both families.
    expect(remedies.windows(2).all(|two| two[0] == two[1]), "the same commands for both families", &remedies)?;
    for line in remedies.first().into_iter().flatten() {
        guest.run(line.strip_prefix("sudo ").unwrap_or(line))?;
    }
    for attempt in attempts {
        expect(attempt.make(&lab.client)?.seen == Seen::Connected, "the remedy opens the port", &attempt)?;
        foretold(binary, &lab, manager, attempt, true)?;
    }
    Ok(())
}

/// What is said of an attempt before it is made: by the simulation, whoever tells the rules, and by the doctor.
fn foretold(binary: &Path, lab: &Lab, manager: &Manager, attempt: Attempt, passes: bool) -> Result<(), Box<dyn Error>> {
    let netns = Netns::at(&lab.wsl.path())?;
    let (destination, destination_port) = (attempt.target.ip(), attempt.target.port());
    let way = Way::Outside { device: Some("eth0".to_owned()), bridged: false };
    let packet = Packet { way, source: None, source_port: None, destination, destination_port, ecn: None };
    let own = |v6| ("eth0".to_owned(), Lab::wsl_address(v6));
    let ways = [(Lab::container_address(), "docker0".to_owned())].into();
    let machine = Machine { addresses: vec![own(false), own(true)], ways, proxies: None };
    let by = |reader| -> Result<Prediction, Box<dyn Error>> { Ok(predict(&read_by(&netns, reader)?, &packet, &machine)) };
    let (nft, kernel) = (by(Reader::Nft)?, by(Reader::Kernel)?);
    expect(nft == kernel, "the same by nft and by the kernel", &(&nft, &kernel))?;
    // For IPv6 firewalld asks the routes for the way back to the client, whom nobody knows yet: that it passes is not certain.
    let asks_routes = nft.maybe().iter().all(|because| because.starts_with("fib"));
    let right = match (&nft.end, nft.stops().last()) {
        (_, Some(End::Dropped { rule, .. } | End::Rejected { rule, .. })) => {
            !passes && serde_json::to_value(rule)?["owner"] == manager.owner
        }
        (End::Passes { .. }, _) => passes,
        (End::Maybe { .. }, _) => passes && asks_routes && destination.is_ipv6(),
        _ => false,
    };
    expect(right, if passes { "that it passes" } else { "that the manager's rule stops it" }, &nft)?;
    if manager.behind {
        return Ok(());
    }
    let netns = lab.wsl.path().display().to_string();
    let ran = Command::new(binary).args(["doctor", "--port", "8080", "--json", "--netns", &netns]).output()?;
    let examined: Value = serde_json::from_slice(&ran.stdout)?;
    let way = if destination.is_ipv4() { "lan_to_address" } else { "lan6" };
    let row = examined["ways"].as_array().into_iter().flatten().find(|row| row["way"] == way).cloned();
    let wanted = match (passes, &nft.end) {
        (true, End::Maybe { .. }) => "unknown",
        (true, _) => "works",
        (false, _) => "fails",
    };
    expect(row.as_ref().is_some_and(|row| row["answer"] == wanted), wanted, &row)?;
    let text = String::from_utf8_lossy(&ran.stdout);
    expect(passes || text.contains(manager.remedy), manager.remedy, &text)
}

/// What is printed for an attempt that the manager's rules let die.
fn remedy(binary: &Path, lab: &Lab, manager: &Manager, attempt: Attempt) -> Result<Vec<String>, Box<dyn Error>> {
    let mut tracer = Tracer::start_json(binary, &lab.wsl, Detail::Full)?;
    tracer.await_armed()?;
    let refused = attempt.make(&lab.client)?;
    let said = tracer.stop()?;
    expect(refused.seen != Seen::Connected, "the firewall stands in the way", &refused.seen)?;
    let lines: Vec<Value> = said.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let journeys: Vec<&Value> = lines.iter().filter(|line| line["type"] == "journey").collect();
    expect(journeys.len() as u64 == refused.syns, "one journey a SYN", &said.stdout)?;
    for journey in &journeys {
        let diagnosis = &journey["diagnosis"];
        expect(journey["rule"]["owner"] == manager.owner, manager.owner, journey)?;
        expect(diagnosis["code"] == manager.code, manager.code, journey)?;
        expect(diagnosis["confidence"] == "proved", "a proof", journey)?;
        expect(diagnosis["remedy"][0].as_str().is_some_and(|line| line.contains(manager.remedy)), manager.remedy, diagnosis)?;
    }
    let remedy = journeys.first().and_then(|journey| journey["diagnosis"]["remedy"].as_array()).ok_or("no remedy")?;
    // What is told beside the commands is for whom the manager's program is not there.
    Ok(remedy.iter().filter_map(Value::as_str).filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

fn shell(line: &str) -> Result<(), LabError> {
    let status = Command::new("sh").args(["-c", line]).status();
    let status = status.map_err(|source| LabError::Io { doing: format!("run '{line}'"), source })?;
    if status.success() { Ok(()) } else { Err(LabError::Failed(format!("'{line}' ended with {status}"))) }
}

fn expect(holds: bool, what: &str, but: &impl std::fmt::Debug) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("expected: {what}; but: {but:?}").into()) }
}
