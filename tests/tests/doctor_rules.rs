//! Rules, settings and routes of many kinds: what the doctor's table says of each, beside what a client saw, and what mends it.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Attempt, Lab, LabError, Manner, PORT, Seen, Side};
use wsltrace_tests::decide;
use wsltrace_tests::examined::{examined, lab, mend, said_of};
use wsltrace_tests::ran::check;

type Test = fn(&Path) -> Result<(), Box<dyn Error>>;

fn main() {
    let tests: [(&'static str, Test); 3] = [
        ("clients_that_cannot_find_this_machine_are_told_of", neighbours),
        ("what_refuses_clients_is_taken_away_by_the_printed_command", refusers),
        ("rules_between_tables_are_judged_by_the_marks_that_packets_have", marked),
    ];
    let trials = tests.map(|(name, test)| Trial::ignorable_test(name, move || decide(name, test)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// Rules and settings about questions for hardware addresses: what the table may say of them, whether the client is asked for over IPv6, and whether
/// one that knows nobody's hardware address connects.
const SEARCHES: [(&str, &str, bool, bool); 16] = [
    ("true", "works", false, true),
    ("nft 'table arp t { chain c { type filter hook input priority 0; policy drop; }; }'", "fails", false, false),
    ("nft 'table arp t { chain c { type filter hook output priority 0; counter drop; }; }'", "fails", false, false),
    ("nft 'table arp t { chain c { type filter hook input priority 0; arp operation request drop; }; }'", "fails", false, false),
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
