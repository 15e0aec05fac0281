//! Over every fault of the lab: what the doctor's table says of the way that the client took, beside what the client saw.

use std::error::Error;
use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Lab, LabError, Scenario, Seen, Side, all, find};
use wsltrace_tests::decide;
use wsltrace_tests::examined::{examined, lines, mend, said_of};

/// Faults of the lab that an examination does not see, with the reason. Of each it may say that the way works, and the tracer is
/// there to say that it does not.
const UNSEEN: [(&str, &str); 55] = [
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
    ("bridge-noarp", "hardware addresses are not looked at"),
    ("reply-drop-port-nft", "chains at the ports of a bridge are not followed"),
    ("reply-held-back", "how much waits in queues is not looked at"),
    ("container-gateway-by-hand", "it is inside of the container"),
    ("container-moved", "hardware addresses are not looked at"),
    ("container-moved-cold", "hardware addresses are not looked at"),
    ("neighbour-deaf-container", "it is inside of the container"),
    ("neighbour-deaf-container-request", "it is inside of the container"),
    ("neighbour-ignoring-container", "it is inside of the container"),
    ("neighbour-noarp-container", "it is inside of the container"),
    ("container-switched-off", "it is inside of the container"),
    ("reply-unanswered", "the client's side decides"),
    ("reply-reset-by-client", "the client's side decides"),
    ("frame-to-many", "the client's side decides"),
    ("answer-refused-by-client", "the client's side decides: its own socket"),
    ("header-too-long", "the client's side decides"),
    ("neighbour-mute-client", "the client's side decides"),
    ("answer-wrapped-v6", "it depends on the client's address"),
    ("vlan-switched-off", "it depends on the client's address: which of this machine's it asks for"),
    ("neighbour-mute-gateways", "it depends on the client's address"),
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
const BY_HAND: [(&str, &str); 5] = [
    ("drop-before-no-listener", "a server has to be started"),
    ("drop-before-no-listener-v6", "a server has to be started"),
    ("reject-before-no-listener", "a server has to be started"),
    ("reject-before-no-listener-v6", "a server has to be started"),
    ("drop-before-loopback", "the server has to be told to listen elsewhere"),
];
/// Programs that a firewall's rules are changed with.
const RULERS: [&str; 4] = ["nft", "iptables", "ip6tables", "ufw"];
/// The faults are shared by so many tests, which run at the same time.
const PARTS: usize = 4;
/// At least so many of each part are decided.
const DECIDED: usize = 20;

fn main() {
    let part = |part| {
        let name = format!("the_table_never_contradicts_the_client_{}_of_{PARTS}", part + 1);
        Trial::ignorable_test(name.clone(), move || decide(&name, |binary| table(binary, part)))
    };
    libtest_mimic::run(&Arguments::from_args(), (0..PARTS).map(part).collect()).exit();
}

fn table(binary: &Path, part: usize) -> Result<(), Box<dyn Error>> {
    let (mut wrong, mut known, mut unknown) = (Vec::new(), 0, Vec::new());
    let possible = |scenario: &Scenario| scenario.obstacle().is_none() && scenario.impossible().is_none();
    // To look at some of them only.
    let wanted = std::env::var("WSLTRACE_TEST_SCENARIOS").ok();
    if let Some(name) = wanted.iter().flat_map(|names| names.split(' ')).find(|name| find(name).is_none()) {
        return Err(format!("no scenario is called '{name}'").into());
    }
    let chosen = |scenario: &Scenario| wanted.as_ref().is_none_or(|names| names.split(' ').any(|name| name == scenario.name));
    for scenario in all().into_iter().skip(part).step_by(PARTS).filter(possible).filter(chosen) {
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
    if count > 0 || wanted.is_none() && known < DECIDED {
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
