//! `wsltrace doctor` as its users call it, in networks that are made for it.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Attempt, Binding, Lab, LabError, Listening, Manner, Scenario, Seen, Side, all};
use wsltrace_tests::decide;
use wsltrace_tests::ran::check;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

const PORT: u16 = 8080;
/// Faults of the lab that an examination does not see, with the reason. Of each it may say that the way works, and the tracer is
/// there to say that it does not.
const UNSEEN: [(&str, &str); 45] = [
    ("reverse-path-filter", "it depends on the client's address"),
    ("no-route-back", "it depends on the client's address"),
    ("reply-wrong-interface", "it depends on the client's address"),
    ("reply-wrong-neighbour", "it depends on the client's address"),
    ("ipsec-block-in", "it depends on the client's address"),
    ("ipsec-unencrypted", "it depends on the client's address"),
    ("ipsec-block-out", "it depends on the client's address"),
    ("ipsec-no-key-out", "it depends on the client's address"),
    ("martian-own-address", "it depends on the client's address"),
    ("hairpin-off", "it depends on the client's address: the container's own"),
    ("hairpin-unmasqueraded", "it depends on the client's address: the container's own"),
    ("neighbour-set-by-hand-client", "it depends on the client's address"),
    ("neighbour-set-by-hand", "hardware addresses are not looked at"),
    ("container-moved", "hardware addresses are not looked at"),
    ("container-moved-cold", "hardware addresses are not looked at"),
    ("neighbour-deaf-container", "it is inside of the container"),
    ("container-switched-off", "it is inside of the container"),
    ("reply-unanswered", "the client's side decides"),
    ("reply-reset-by-client", "the client's side decides"),
    ("frame-to-many", "the client's side decides"),
    ("answer-refused-by-client", "the client's side decides: its own socket"),
    ("header-too-long", "the client's side decides"),
    ("neighbour-mute-client", "the client's side decides"),
    ("conntrack-invalid", "the client's side decides: its SYN is malformed"),
    ("wrong-checksum", "the client's side decides"),
    ("path-mtu", "the client's side decides"),
    ("data-unconfirmed", "the client's side decides"),
    ("ttl-used-up", "the client's side decides: its packets have a TTL of 1"),
    ("conntrack-old-entry", "it comes with the connections"),
    ("data-not-read", "it comes with the connections"),
    ("syn-queue-full", "it comes with the connections"),
    ("masquerade-port-taken", "it comes with the connections"),
    ("masquerade-port-taken-legacy", "it comes with the connections"),
    ("overflow-of-a-stranger", "it comes with the connections"),
    ("not-accepted", "it comes with the connections"),
    ("not-accepted-container", "it comes with the connections"),
    ("reset-at-once", "it comes with the connections"),
    ("reset-at-once-container", "it comes with the connections"),
    ("closed-before-confirmed", "it comes with the connections"),
    ("reuseport-idle", "it comes with the connections"),
    ("reuseport-refuses", "the kernel does not tell of it"),
    ("listener-min-ttl", "the kernel does not tell of it"),
    ("listener-filter", "the kernel does not tell of it"),
    ("confirmation-drop-filter", "the kernel does not tell of it"),
    ("listener-md5", "the kernel does not tell of it"),
];
/// Faults of the lab that an examination sees and that no rule of ours is to mend, with the reason.
const WANTED: [(&str, &str); 1] = [("docker-internal", "Docker keeps the network internal, and takes containers into others")];
/// Faults of the lab of which commands mend one half, and a person has to do the other.
const BY_HAND: [(&str, &str); 3] = [
    ("drop-before-no-listener", "a server has to be started"),
    ("drop-before-no-listener-v6", "a server has to be started"),
    ("drop-before-loopback", "the server has to be told to listen elsewhere"),
];
/// Programs that a firewall's rules are changed with.
const RULERS: [&str; 4] = ["nft", "iptables", "ip6tables", "ufw"];
/// Somebody who is not root.
const NOBODY: u32 = 65534;

fn main() {
    let tests: [(&'static str, Test); 10] = [
        ("an_examination_is_valid_by_its_schema", valid),
        ("the_exit_status_says_whether_something_will_fail", status),
        ("somebody_who_is_not_root_learns_what_was_not_seen", without_root),
        ("the_table_never_contradicts_the_client", table),
        ("clients_that_cannot_find_this_machine_are_told_of", neighbours),
        ("what_refuses_clients_is_taken_away_by_the_printed_command", refusers),
        ("rules_between_tables_are_judged_by_the_marks_that_packets_have", marked),
        ("the_rules_of_nftables_are_read_without_nft", without_nft),
        ("the_script_is_one_and_nothing_is_changed", script),
        ("what_is_typed_wrongly_is_told", usage),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

fn doctor(binary: &Path, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(binary).arg("doctor").args(arguments).output()?)
}

/// Examines the lab's middle.
fn examined(binary: &Path, lab: &Lab, arguments: &[&str]) -> Result<Output, Box<dyn Error>> {
    let path = lab.wsl.path().display().to_string();
    doctor(binary, &[&["--port", "8080", "--netns", &path], arguments].concat())
}

/// A lab with a server on one address.
fn lab(address: impl Into<std::net::IpAddr>) -> Result<Lab, Box<dyn Error>> {
    let mut lab = Lab::new(None)?;
    let server = Listening::accepting(&lab.wsl, Binding::new(address, PORT))?;
    lab.keep(server);
    Ok(lab)
}

fn valid(binary: &Path) -> Result<(), Box<dyn Error>> {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/doctor-1.json"))?;
    let validator = jsonschema::validator_for(&schema)?;
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    for arguments in [&["--json"][..], &["--json", "--redact"]] {
        let ran = examined(binary, &lab, arguments)?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        validator.validate(&value).map_err(|error| error.to_string())?;
        check(&ran, value["linux"]["listeners"][0]["pid"] == std::process::id(), "the server's process")?;
        let own = String::from_utf8_lossy(&ran.stdout).contains(&Lab::wsl_address(false).to_string());
        check(&ran, own != arguments.contains(&"--redact"), "addresses unless they are hidden")?;
    }
    Ok(())
}

fn status(binary: &Path) -> Result<(), Box<dyn Error>> {
    let ran = examined(binary, &lab(Ipv4Addr::UNSPECIFIED)?, &[])?;
    check(&ran, ran.status.code() == Some(0), "that nothing is wrong")?;
    let ran = examined(binary, &Lab::new(None)?, &[])?;
    let told = String::from_utf8_lossy(&ran.stdout).contains("Nothing listens on port 8080");
    check(&ran, ran.status.code() == Some(1) && told, "that nobody listens")?;
    let ran = examined(binary, &lab(Ipv6Addr::LOCALHOST)?, &[])?;
    let told = String::from_utf8_lossy(&ran.stdout).contains("Only [::1] leads to the server");
    check(&ran, ran.status.code() == Some(0) && told, "that only [::1] leads to it")
}

/// Over every fault of the lab: what the table says of the way that the client took, beside what the client saw.
fn table(binary: &Path) -> Result<(), Box<dyn Error>> {
    let (mut wrong, mut known, mut unknown) = (Vec::new(), 0, Vec::new());
    let possible = |scenario: &Scenario| scenario.obstacle().is_none() && scenario.impossible().is_none();
    // To look at some of them only.
    let wanted = std::env::var("WSLTRACE_TEST_SCENARIOS").ok();
    let chosen = |scenario: &Scenario| wanted.as_ref().is_none_or(|names| names.split(' ').any(|name| name == scenario.name));
    for scenario in all().into_iter().filter(possible).filter(chosen) {
        match one(binary, &scenario) {
            Ok(None) => {}
            Ok(Some((said, _))) if said == "unknown" => unknown.push(scenario.name),
            Ok(Some((said, connected))) if (said == "works") == connected => known += 1,
            Ok(Some((said, _))) if said == "works" && UNSEEN.iter().any(|(name, _)| *name == scenario.name) => {}
            Ok(Some((said, connected))) => wrong.push(format!("{}: {said}, connected: {connected}", scenario.name)),
            Err(error) => wrong.push(format!("{}: {error}", scenario.name)),
        }
    }
    let count = wrong.len();
    if count > 0 || wanted.is_none() && known < 30 {
        return Err(format!(
            "{known} right, {} not known ({}), {count} wrong:\n{}",
            unknown.len(),
            unknown.join(", "),
            wrong.join("\n")
        )
        .into());
    }
    Ok(())
}

/// What the table says, and whether the client connected; `None` where the client takes a way that is not in the table.
fn one(binary: &Path, scenario: &Scenario) -> Result<Option<(String, bool)>, Box<dyn Error>> {
    let mut lab = Lab::of(scenario)?;
    match (scenario.break_it)(&mut lab) {
        Err(LabError::Unsupported(_)) => return Ok(None),
        broken => broken?,
    }
    let ran = examined(binary, &lab, &["--json"])?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let address = |way: &str| match way {
        "lan_to_address" => value["linux"]["outer"][0].as_str().map(str::to_owned),
        "inside4" => Some("127.0.0.1".to_owned()),
        "inside6" => Some("::1".to_owned()),
        _ => None,
    };
    let is_inside = scenario.from == Side::Wsl;
    let row = value["ways"].as_array().into_iter().flatten().find(|row| {
        let way = row["way"].as_str().unwrap_or_default();
        way.starts_with("inside") == is_inside && address(way).is_some_and(|own| own == scenario.target.to_string())
    });
    // Rules that lead a port on do so for a server elsewhere, whatever becomes of the packets on their way.
    if scenario.name == "forward-drop" && said_of(&value, "listener").as_deref() == Some("fails") {
        return Err("a server in a container is missed".into());
    }
    let Some(said) = row.and_then(|row| row["answer"].as_str()).map(str::to_owned) else { return Ok(None) };
    let connected =
        || -> Result<bool, Box<dyn Error>> { Ok(scenario.attempt().make(lab.side(scenario.from)?)?.seen == Seen::Connected) };
    let before = connected()?;
    if WANTED.iter().any(|(name, _)| *name == scenario.name) {
        let mends = lines(&value).any(|line| RULERS.iter().any(|ruler| line.contains(ruler)));
        let told = said == "fails" && !before && !mends && lines(&value).count() > 0;
        return if told { Ok(Some((said, before))) } else { Err(format!("expected words and no rule: {value}").into()) };
    }
    let by_hand = BY_HAND.iter().any(|(name, _)| *name == scenario.name);
    if said == "fails" && !before && mend(&lab, &value)? && !connected()? && !by_hand {
        return Err(format!("the commands do not mend it: {}", value["findings"]).into());
    }
    Ok(Some((said, before)))
}

/// Rules and settings about questions for hardware addresses: what the table may say of them, whether the client is asked for over IPv6, and whether
/// one that knows nobody's hardware address connects.
const SEARCHES: [(&str, &str, bool, bool); 16] = [
    ("true", "works", false, true),
    ("nft 'table arp t { chain c { type filter hook input priority 0; policy drop; }; }'", "fails", false, false),
    ("nft 'table arp t { chain c { type filter hook output priority 0; counter drop; }; }'", "fails", false, false),
    (
        "nft 'table arp t { chain c { type filter hook input priority 0; arp operation request drop; }; }'",
        "unknown",
        false,
        false,
    ),
    ("nft 'table arp t { chain c { type filter hook input priority 0; accept; }; }'", "works", false, true),
    ("echo 8 > /proc/sys/net/ipv4/conf/eth0/arp_ignore", "fails", false, false),
    ("echo 8 > /proc/sys/net/ipv4/conf/all/arp_ignore", "fails", false, false),
    ("echo 2 > /proc/sys/net/ipv4/conf/eth0/arp_ignore", "works", false, true),
    ("ip link set eth0 arp off", "fails", false, false),
    (
        "nft 'table ip6 t { chain c { type filter hook output priority 0; icmpv6 type nd-neighbor-advert drop; }; }'",
        "fails",
        true,
        false,
    ),
    (
        "nft 'table inet t { chain c { type filter hook input priority 0; icmpv6 type nd-neighbor-solicit drop; }; }'",
        "fails",
        true,
        false,
    ),
    (
        "nft 'table inet t { chain c { type filter hook input priority 0; policy drop; ip6 hoplimit 255 icmpv6 type \
         { nd-neighbor-solicit, nd-router-advert } accept; tcp dport 8080 accept; }; }'",
        "works",
        true,
        true,
    ),
    (
        "nft 'table inet t { chain c { type filter hook output priority 0; policy drop; tcp sport 8080 accept; }; }'",
        "fails",
        true,
        false,
    ),
    (
        "nft 'table inet t { chain c { type filter hook output priority 0; icmpv6 type nd-router-advert drop; }; }'",
        "works",
        true,
        true,
    ),
    ("ip6tables-legacy -A INPUT -p icmpv6 --icmpv6-type neighbor-solicitation -m hl --hl-eq 255 -j DROP", "fails", true, false),
    ("ip6tables-nft -A OUTPUT -p icmpv6 --icmpv6-type neighbor-advertisement -j DROP", "fails", true, false),
];

fn neighbours(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (rule, expected, v6, connects) in SEARCHES {
        let lab = if v6 { lab(Ipv6Addr::UNSPECIFIED)? } else { lab(Ipv4Addr::UNSPECIFIED)? };
        let shell = |netns: &wsltrace::lab::Side, line: &str| -> Result<(), Box<dyn Error>> {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            let ran = lab.side(*netns)?.run(|| command.output().map_err(LabError::io("run a shell")))?;
            check(&ran, ran.status.success(), &format!("that `{line}` succeeds"))
        };
        let target = (Lab::wsl_address(v6), PORT).into();
        let attempt = Attempt { target, from_port: 0, manner: Manner::Listens, patience: std::time::Duration::from_millis(600) };
        let connected = || -> Result<bool, Box<dyn Error>> {
            // A client that comes for the first time; the way back is asked for by the same packets.
            shell(&Side::Client, "ip neighbour flush all; ip -6 neighbour flush all")?;
            shell(&Side::Wsl, "ip neighbour flush all; ip -6 neighbour flush all")?;
            Ok(attempt.make(&lab.client)?.seen == Seen::Connected)
        };
        shell(&Side::Wsl, rule)?;
        let ran = examined(binary, &lab, &["--json"])?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        let way = if v6 { "lan6" } else { "lan_to_address" };
        let row = value["ways"].as_array().into_iter().flatten().find(|row| row["way"] == way).ok_or("no such row")?;
        let before = connected()?;
        let as_expected = row["answer"] == expected && before == connects;
        check(&ran, as_expected, &format!("{expected} of `{rule}`, connected: {connects} (it was {before}; {row})"))?;
        let told = said_of(&value, "neighbours");
        check(&ran, told.as_deref() == Some(expected).filter(|said| *said != "works"), &format!("a finding of `{rule}`"))?;
        if expected == "fails" {
            check(&ran, mend(&lab, &value)? && connected()?, &format!("that the command mends `{rule}`"))?;
        }
    }
    Ok(())
}

/// What refuses the answers to the lab's client, or to everybody, as `ip` takes it behind the family; `CLIENT` and `OWN` stand for
/// addresses of hosts. The table may say of everybody that it fails, and of one client nothing.
const REFUSERS: [(&str, &str); 10] = [
    ("route add blackhole CLIENT", "unknown"),
    ("route add unreachable CLIENT", "unknown"),
    ("route add prohibit CLIENT", "unknown"),
    ("route add throw CLIENT", "unknown"),
    ("rule add pref 9 to CLIENT blackhole", "unknown"),
    ("rule add pref 9 from OWN to CLIENT prohibit", "unknown"),
    ("rule add pref 9 from OWN unreachable", "fails"),
    ("rule add pref 9 from OWN blackhole", "fails"),
    ("rule add pref 9 ipproto tcp sport 8080 prohibit", "fails"),
    ("rule add pref 9 iif lo ipproto tcp sport 8000-9000 unreachable", "fails"),
];

fn refusers(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (v6, (refuser, expected)) in [false, true].into_iter().flat_map(|v6| REFUSERS.map(|one| (v6, one))) {
        let lab = if v6 { lab(Ipv6Addr::UNSPECIFIED)? } else { lab(Ipv4Addr::UNSPECIFIED)? };
        let family = if v6 { "-6 " } else { "" };
        let (client, own) = if v6 { ("fd00:28:16::1", Lab::wsl_address(true)) } else { ("172.28.16.1", Lab::wsl_address(false)) };
        let line = format!("ip {family}{}", refuser.replace("CLIENT", client).replace("OWN", &own.to_string()));
        let typed = |line: &str| -> Result<(), Box<dyn Error>> {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            let ran = lab.wsl.run(|| command.output().map_err(LabError::io("run a shell")))?;
            check(&ran, ran.status.success(), &format!("that `{line}` succeeds"))
        };
        let target = (Lab::wsl_address(v6), PORT).into();
        let attempt = Attempt { target, from_port: 0, manner: Manner::Listens, patience: std::time::Duration::from_millis(600) };
        let connected = || -> Result<bool, Box<dyn Error>> { Ok(attempt.make(&lab.client)?.seen == Seen::Connected) };
        check_that(connected()?, "the client connects while nothing refuses it")?;
        typed(&line)?;
        let ran = examined(binary, &lab, &["--json"])?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        let way = if v6 { "lan6" } else { "lan_to_address" };
        let row = value["ways"].as_array().into_iter().flatten().find(|row| row["way"] == way).ok_or("no such row")?;
        check(&ran, row["answer"] == expected && !connected()?, &format!("{expected} and no connection with `{line}` ({row})"))?;
        let found = value["findings"].as_array().into_iter().flatten().find(|finding| finding["check"] == "own_routing");
        let remedy = found.ok_or("no finding")?["remedy"].as_array().into_iter().flatten().find_map(|line| line["text"].as_str());
        // The lab is entered by what the command says itself.
        typed(
            remedy.and_then(|text| text.strip_prefix("sudo ")).ok_or_else(|| format!("no command against `{line}`: {value}"))?,
        )?;
        check_that(connected()?, &format!("{remedy:?} ends `{line}`"))?;
    }
    Ok(())
}

/// Rules of `ip rule` as VPNs and proxies have them, a line each, with what the table may say, and whether the client connects.
const MARKED: [(&[&str], &str, bool); 11] = [
    (&["ip rule add fwmark 0x80000/0xff0000 unreachable"], "works", true),
    (&["ip rule add lookup 52", "ip route add 100.64.0.0/10 dev eth0 table 52"], "works", true),
    (&["ip rule add not fwmark 51820 lookup 51820", "ip rule add lookup main suppress_prefixlength 0", LEADS_OFF], "works", true),
    (&["ip rule add not fwmark 51820 lookup 51820", LEADS_OFF], "unknown", false),
    (
        &[
            "ip rule add fwmark 1 blackhole",
            "nft 'table ip t { chain c { type route hook output priority -150; tcp sport 8080 meta mark set 1; }; }'",
        ],
        "unknown",
        false,
    ),
    (
        &[
            "ip rule add fwmark 1 blackhole",
            "nft 'table ip t { chain c { type route hook output priority -150; tcp sport 9090 meta mark set 1; }; }'",
        ],
        "works",
        true,
    ),
    (&["ip rule add fwmark 1 blackhole", MARKS_SYN], "works", true),
    (&["ip rule add fwmark 1 blackhole", MARKS_SYN, "sysctl -w net.ipv4.tcp_fwmark_accept=1"], "unknown", false),
    // The way back is looked for by the SYN's mark, and ends at this machine.
    (&["ip rule add fwmark 1 lookup 100", LOCAL, MARKS_SYN], "works", true),
    (&["ip rule add fwmark 1 lookup 100", LOCAL, MARKS_SYN, "sysctl -w net.ipv4.conf.all.src_valid_mark=1"], "unknown", false),
    (&["ip rule add fwmark 1 lookup 100", LOCAL, "sysctl -w net.ipv4.conf.all.src_valid_mark=1"], "works", true),
];
const LEADS_OFF: &str = "ip route add unreachable default table 51820";
const LOCAL: &str = "ip route add local default dev lo table 100";
const MARKS_SYN: &str =
    "nft 'table ip p { chain c { type filter hook prerouting priority -150; tcp dport 8080 meta mark set 1; }; }'";

fn marked(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (lines, expected, connects) in MARKED {
        let lab = lab(Ipv4Addr::UNSPECIFIED)?;
        for line in lines {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            let ran = lab.wsl.run(|| command.output().map_err(LabError::io("run a shell")))?;
            check(&ran, ran.status.success(), &format!("that `{line}` succeeds"))?;
        }
        let target = (Lab::wsl_address(false), PORT).into();
        let attempt = Attempt { target, from_port: 0, manner: Manner::Listens, patience: std::time::Duration::from_millis(600) };
        let connected = attempt.make(&lab.client)?.seen == Seen::Connected;
        let ran = examined(binary, &lab, &["--json"])?;
        let value: Value = serde_json::from_slice(&ran.stdout)?;
        let row = value["ways"].as_array().into_iter().flatten().find(|row| row["way"] == "lan_to_address").ok_or("no row")?;
        let as_expected = row["answer"] == expected && connected == connects;
        check(&ran, as_expected, &format!("{expected} of {lines:?}, connected: {connects} (it was {connected}; {row})"))?;
    }
    Ok(())
}

fn check_that(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("expected that {what}").into()) }
}

/// How bad the finding of a check is.
fn said_of(examined: &Value, check: &str) -> Option<String> {
    let finding = examined["findings"].as_array()?.iter().find(|finding| finding["check"] == check)?;
    finding["severity"].as_str().map(str::to_owned)
}

/// Every line that is printed against what fails.
fn lines(examined: &Value) -> impl Iterator<Item = &str> {
    let findings = examined["findings"].as_array().into_iter().flatten().filter(|finding| finding["severity"] == "fails");
    let remedies = findings.flat_map(|finding| finding["remedy"].as_array().into_iter().flatten());
    remedies.filter_map(|line| line["text"].as_str())
}

/// Runs the commands against what stops a connection in a firewall, as they are printed; whether there were any.
fn mend(lab: &Lab, examined: &Value) -> Result<bool, Box<dyn Error>> {
    let is_of_firewall = |finding: &&Value| {
        ["firewall", "forwarding", "neighbours", "own_routing"].contains(&finding["check"].as_str().unwrap_or_default())
    };
    let fails = |finding: &&Value| finding["severity"] == "fails" && finding["check"] != "listener";
    let findings = examined["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    if findings.iter().filter(fails).any(|finding| !is_of_firewall(&finding)) {
        // Something else fails as well, and no command mends that.
        return Ok(false);
    }
    let mut any = false;
    for finding in findings.iter().filter(fails) {
        for line in finding["remedy"].as_array().into_iter().flatten().filter_map(|line| line["text"].as_str()) {
            let Some(command) = line.strip_prefix("sudo ") else { continue };
            let mut shell = Command::new("sh");
            shell.args(["-c", command]);
            let ran = lab.wsl.run(|| shell.output().map_err(|source| LabError::Io { doing: command.to_owned(), source }))?;
            check(&ran, ran.status.success(), &format!("that `{command}` succeeds"))?;
            any = true;
        }
    }
    Ok(any)
}

fn without_root(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    let mut command = Command::new(binary);
    command.args(["doctor", "--port", "8080", "--json"]).uid(NOBODY).gid(NOBODY);
    let ran = lab
        .side(Side::Wsl)?
        .run(|| command.output().map_err(|source| wsltrace::lab::LabError::Io { doing: "run the doctor".to_owned(), source }))?;
    let value: Value = serde_json::from_slice(&ran.stdout)?;
    let listeners = &value["linux"]["listeners"];
    check(&ran, listeners[0]["address"] == "0.0.0.0" && listeners[0]["pid"].is_null(), "a listener without its process")?;
    let findings = value["findings"].as_array().ok_or("no findings")?;
    let unseen = findings.iter().filter(|finding| finding["severity"] == "unknown");
    let advised = unseen.filter(|finding| finding["remedy"][0]["text"] == "sudo wsltrace doctor --port 8080").count();
    check(&ran, advised > 0, "what root would have seen")?;
    // Nobody but root may read firewall rules.
    check(&ran, ran.status.code() == Some(3), "that nothing could be decided")
}

/// With no program in reach but iptables' own lister, or none at all.
fn without_nft(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::UNSPECIFIED)?;
    let tools = tempfile::tempdir()?;
    let attempt = Attempt {
        target: (Lab::wsl_address(false), PORT).into(),
        from_port: 0,
        manner: Manner::Listens,
        patience: std::time::Duration::from_millis(200),
    };
    let connected = || -> Result<bool, Box<dyn Error>> { Ok(attempt.make(&lab.client)?.seen == Seen::Connected) };
    let examine = || -> Result<Value, Box<dyn Error>> {
        let netns = lab.wsl.path().display().to_string();
        let mut command = Command::new(binary);
        command.args(["doctor", "--port", "8080", "--json", "--netns", &netns]).env("PATH", tools.path());
        Ok(serde_json::from_slice(&command.output()?.stdout)?)
    };
    let row = |value: &Value| value["ways"].as_array().and_then(|rows| rows.first()).map(|row| row["answer"].clone());
    let shell = |line: &str| -> Result<bool, Box<dyn Error>> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        Ok(lab.wsl.run(|| command.status().map_err(LabError::io("run a shell")))?.success())
    };
    let table = "table inet t { chain c { type filter hook input priority 0; iifname eth0 tcp dport { 80, 8080 } drop; }; }";
    if !shell(&format!("nft '{table}'"))? {
        return Err("nft makes no table".into());
    }
    let value = examine()?;
    if (row(&value), connected()?) != (Some("fails".into()), false) {
        return Err(format!("a rule of nft: {value:#}").into());
    }
    if !shell("nft delete table inet t && iptables-nft -A INPUT -p tcp -m tcp --dport 8080 -j DROP")? {
        return Err("iptables-nft makes no rule".into());
    }
    for save in ["iptables-nft-save", "ip6tables-nft-save"] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin"].iter().map(|place| Path::new(place).join(save)).find(|path| path.exists());
        std::os::unix::fs::symlink(found.ok_or("no iptables-nft-save")?, tools.path().join(save))?;
    }
    let value = examine()?;
    if (row(&value), connected()?) != (Some("fails".into()), false) {
        return Err(format!("a rule of iptables: {value:#}").into());
    }
    if !mend(&lab, &value)? || !connected()? {
        return Err(format!("the commands do not mend it: {value:#}").into());
    }
    if row(&examine()?) != Some("works".into()) {
        return Err("what was mended still fails".into());
    }
    Ok(())
}

fn script(binary: &Path) -> Result<(), Box<dyn Error>> {
    let lab = lab(Ipv4Addr::LOCALHOST)?;
    let ran = examined(binary, &lab, &["--fix"])?;
    check(&ran, ran.stdout.starts_with(b"#!/bin/sh\n"), "a script")?;
    let path = tempfile::NamedTempFile::new()?;
    std::fs::write(&path, &ran.stdout)?;
    let syntax = Command::new("sh").arg("-n").arg(path.path()).output()?;
    check(&syntax, syntax.status.success(), "a script that a shell reads")
}

fn usage(binary: &Path) -> Result<(), Box<dyn Error>> {
    for (arguments, said) in [
        (&[][..], "the port of the server is missing"),
        (&["--port", "0"], "port 0 is no port"),
        (&["--port", "80-90"], "name one port"),
        (&["--port", "80", "--netns", "nosuch"], "no network namespace named 'nosuch'"),
        (&["--port", "80", "--json", "--fix"], "cannot be used with"),
    ] {
        let ran = doctor(binary, arguments)?;
        let told = String::from_utf8_lossy(&ran.stderr).contains(said);
        check(&ran, told && ran.status.code() == Some(2) && ran.stdout.is_empty(), said)?;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let ran = doctor(binary, &[])?;
    let told = String::from_utf8_lossy(&ran.stderr);
    let row = format!("  {:<6} 127.0.0.1 ", server.local_addr()?.port());
    check(&ran, told.contains(&row) && told.contains("try: sudo wsltrace doctor --port "), "what listens, and what to type")
}
