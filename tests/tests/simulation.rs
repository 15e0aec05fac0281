//! Random rulesets: what is said of a SYN before it came must be what the kernel then does with it, and the rule that is said to
//! decide must be the one that decides. "Maybe" is an answer only to what is on the written list.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::kernel::netns::Netns;
use wsltrace::lab::{Lab, LabError, Side};
use wsltrace::simulate::unknown::LIST;
use wsltrace::simulate::{End, Machine, Packet, Prediction, Reader, Way, predict, read_by};
use wsltrace_tests::decide;
use wsltrace_tests::rulesets::each::{IPTABLES, IPTABLES_OPEN, NFT, NFT_OPEN, TABLES};
use wsltrace_tests::rulesets::{
    MARK, Outcome, PORT, Ruleset, Tracer, World, connect, greeted, lab, load, name_of_killer, play_each, seed, seen, seen_from,
    setting,
};

/// How many rulesets are tried when `WSLTRACE_RULESETS` does not say: half of them of nft, a quarter of each iptables.
const RULESETS: u64 = 120;
/// The client's address in the lab.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 28, 16, 1));

fn main() {
    type Test = fn(&Path) -> Outcome<()>;
    let tests: [(&str, Test); 17] = [
        ("what_is_predicted_comes_true_in_random_rulesets_of_nft", |binary| every_killer(binary, World::Nft)),
        ("what_is_predicted_comes_true_in_random_rulesets_of_iptables_nft", |binary| every_killer(binary, World::IptablesNft)),
        ("what_is_predicted_comes_true_in_random_rulesets_of_iptables_legacy", |binary| {
            every_killer(binary, World::IptablesLegacy)
        }),
        ("what_is_predicted_without_the_killer_is_what_the_client_sees_of_nft", |_| without_killers(World::Nft)),
        ("what_is_predicted_without_the_killer_is_what_the_client_sees_of_iptables_nft", |_| without_killers(World::IptablesNft)),
        ("what_is_predicted_without_the_killer_is_what_the_client_sees_of_iptables_legacy", |_| {
            without_killers(World::IptablesLegacy)
        }),
        ("every_expression_of_nft_is_judged_as_the_kernel_does", |_| every_expression(World::Nft)),
        ("every_expression_of_nft_is_judged_on_lo_as_the_kernel_does", |_| over_loopback(World::Nft)),
        ("every_match_of_iptables_nft_is_judged_on_lo_as_the_kernel_does", |_| over_loopback(World::IptablesNft)),
        ("every_match_of_iptables_nft_is_judged_as_the_kernel_does", |_| every_expression(World::IptablesNft)),
        ("every_match_of_iptables_legacy_is_judged_as_the_kernel_does", |_| every_expression(World::IptablesLegacy)),
        ("what_follows_the_answer_is_judged_as_the_kernel_does_of_nft", |_| after_the_answer(World::Nft)),
        ("what_follows_the_answer_is_judged_as_the_kernel_does_of_iptables_nft", |_| after_the_answer(World::IptablesNft)),
        ("what_follows_the_answer_is_judged_as_the_kernel_does_of_iptables_legacy", |_| after_the_answer(World::IptablesLegacy)),
        ("what_is_not_known_of_nft_is_maybe_by_its_name", |_| every_open_one(World::Nft)),
        ("what_is_not_known_of_iptables_nft_is_maybe_by_its_name", |_| every_open_one(World::IptablesNft)),
        ("what_is_not_known_of_iptables_legacy_is_maybe_by_its_name", |_| every_open_one(World::IptablesLegacy)),
    ];
    let trial = |(name, test): (&'static str, Test)| Trial::ignorable_test(name, move || decide(name, test));
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().map(trial).collect()).exit();
}

fn count(world: World) -> Outcome<u64> {
    let share = if world == World::Nft { 2 } else { 4 };
    Ok(setting("WSLTRACE_RULESETS", RULESETS)?.div_ceil(share))
}

/// What is said of a SYN from the client before it comes.
fn predicted(lab: &Lab) -> Outcome<Prediction> {
    let wsl = Lab::wsl_address(false);
    judged(lab, Way::Outside { device: Some("eth0".to_owned()), bridged: false }, CLIENT, wsl)
}

fn judged(lab: &Lab, way: Way, client: IpAddr, destination: IpAddr) -> Outcome<Prediction> {
    let netns = Netns::at(&lab.wsl.path())?;
    let packet = Packet { way, source: Some(client), source_port: None, destination, destination_port: PORT, ecn: Some(false) };
    let machine = Machine { addresses: vec![("eth0".to_owned(), Lab::wsl_address(false))], ..Machine::default() };
    let by = |reader| -> Outcome<Prediction> {
        let rulesets = read_by(&netns, reader)?;
        if !rulesets.unread.is_empty() {
            return Err(format!("not read: {:?}", rulesets.unread).into());
        }
        Ok(predict(&rulesets, &packet, &machine))
    };
    let (kernel, nft) = (by(Reader::Kernel)?, by(Reader::Nft)?);
    // They tell it in different ways, and must be understood to say the same.
    if kernel == nft { Ok(kernel) } else { Err(format!("by the kernel {kernel:?}\nby nft {nft:?}").into()) }
}

/// The ends that an answer allows, and whether it is "maybe".
fn allowed<'a>(prediction: &'a Prediction, ruleset: &Ruleset) -> Outcome<(Vec<&'a End>, bool)> {
    let End::Maybe { possible, because } = &prediction.end else { return Ok((vec![&prediction.end], false)) };
    for because in because {
        // The rest of the list is for what nobody has thought of, and these rulesets have nothing of that.
        let listed = LIST.iter().any(|entry| entry.name == because.name) && !because.name.starts_with("another");
        if !listed || !ruleset.text.contains(because.name.as_str()) {
            return Err(format!("maybe, because of {because}").into());
        }
    }
    Ok((possible.iter().collect(), true))
}

/// Whether an answer is the killer that was put there, and the journey that the tracer saw.
fn one(lab: &Lab, tracer: &Tracer, world: World, ruleset: &Ruleset) -> Outcome<bool> {
    let prediction = predicted(lab)?;
    let (allowed, maybe) = allowed(&prediction, ruleset)?;
    let (handle, number, text) = name_of_killer(lab, world, ruleset)?;
    let client = lab.side(Side::Client)?.run(|| connect().map_err(LabError::io("connect")))?;
    let journey = tracer.journey()?;
    drop(client);
    let (family, table, chain) = &ruleset.place;
    let right = |end: &&End| -> bool {
        let (rule, outcome) = match end {
            End::Dropped { rule, .. } => (rule, "dropped"),
            End::Rejected { rule, .. } => (rule, "rejected"),
            _ => return false,
        };
        let Ok(told) = serde_json::to_value(rule) else { return false };
        let known = told["backend"] == world.backend()
            && told["family"] == *family
            && told["table"] == *table
            && told["chain"] == *chain
            && told["handle"] == handle
            && told["number"] == number
            && text.as_ref().is_none_or(|text| told["text"] == *text)
            && told["comment"] == Value::from((!ruleset.policy).then_some(MARK))
            && (outcome == "rejected") == ruleset.rejects;
        known && journey["outcome"] == outcome && journey["rule"] == told
    };
    if allowed.iter().any(right) {
        Ok(maybe)
    } else {
        Err(format!("predicted {prediction:?}\nbut it was {} by {}", journey["outcome"], journey["rule"]).into())
    }
}

#[expect(clippy::print_stdout, reason = "how often no answer was given")]
fn judge(world: World, what: &str, answers: Vec<Result<bool, String>>) -> Outcome<()> {
    let count = answers.len();
    let maybe = answers.iter().filter(|answer| **answer == Ok(true)).count();
    println!("{}, {what}: {count} rulesets, {maybe} of them maybe", world.backend());
    let wrong: Vec<String> = answers.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {count} wrong\n{}", wrong.len(), wrong.join("\n")).into()) }
}

fn every_killer(binary: &Path, world: World) -> Outcome<()> {
    let count = count(world)?;
    let first = seed(world.backend(), count)?;
    let answers = play_each(binary, world, first..first + count, |lab, tracer, ruleset| one(lab, tracer, world, ruleset))?;
    judge(world, "with their killers", answers)
}

fn without_killers(world: World) -> Outcome<()> {
    let count = count(world)?;
    let first = seed(world.backend(), count)?;
    let lab = lab()?;
    let mut answers = Vec::new();
    for seed in first..first + count {
        let ruleset = world.random(seed).without_killer();
        load(&lab, world, &ruleset)?;
        let answer = client_sees(&lab, &ruleset).map_err(|error| format!("seed {seed}: {error}\n{}", ruleset.text));
        answers.push(answer);
    }
    judge(world, "without them", answers)
}

/// Each expression alone. The kernel may not have it, and then there is nothing to judge.
fn every_expression(world: World) -> Outcome<()> {
    let lab = lab()?;
    let mut answers = Vec::new();
    for text in texts(world, "") {
        let Some(ruleset) = loaded(&lab, world, text) else { continue };
        let answer = client_sees(&lab, &ruleset).map_err(|error| format!("{error}\n{}", ruleset.text));
        answers.push(answer.and_then(|maybe| if maybe { Err(format!("maybe:\n{}", ruleset.text)) } else { Ok(false) }));
    }
    judge(world, "of one expression", answers)
}

/// Puts a ruleset without a known killer into the lab; nothing where this kernel or its tools do not have it.
#[expect(clippy::print_stdout, reason = "what could not be tried")]
fn loaded(lab: &Lab, world: World, text: String) -> Option<Ruleset> {
    let ruleset = Ruleset { text, place: ("", String::new(), String::new()), policy: false, rejects: false };
    match load(lab, world, &ruleset) {
        Ok(()) => Some(ruleset),
        Err(error) => {
            println!("not judged: {error}{}", ruleset.text);
            None
        }
    }
}

/// Each rule about something that is not known. Its name stands in a comment of the ruleset, as the one that may be told.
fn every_open_one(world: World) -> Outcome<()> {
    let lab = lab()?;
    let open: &[(&str, &str)] = if world == World::Nft { &NFT_OPEN } else { &IPTABLES_OPEN };
    let mut answers = Vec::new();
    for (rule, name) in open {
        let text = format!("# {name}\n{}", one_rule(world, "", rule));
        let Some(ruleset) = loaded(&lab, world, text) else { continue };
        answers.push(client_sees(&lab, &ruleset).map_err(|error| format!("{error}\n{}", ruleset.text)));
    }
    judge(world, "of what is not known", answers)
}

/// A ruleset of one rule at INPUT.
fn one_rule(world: World, before: &str, rule: &str) -> String {
    let rest = "*raw\n:PREROUTING ACCEPT\nCOMMIT\n*mangle\n:PREROUTING ACCEPT\nCOMMIT\n*nat\n:PREROUTING ACCEPT\nCOMMIT\n";
    match world {
        World::Nft => format!("table inet t {{\nchain c {{\ntype filter hook input priority 0;\n{before}{rule}\n}}\n}}\n"),
        World::IptablesNft | World::IptablesLegacy => {
            format!("{rest}*filter\n:INPUT ACCEPT\n{before}-A INPUT {rule} -j DROP\nCOMMIT\n")
        }
    }
}

/// The rulesets of one expression.
fn texts(world: World, before: &str) -> Vec<String> {
    let rules: &[&str] = if world == World::Nft { &NFT } else { &IPTABLES };
    // Whole rulesets have no place for another rule.
    let tables = TABLES.iter().filter(|_| world == World::Nft && before.is_empty());
    rules.iter().map(|rule| one_rule(world, before, rule)).chain(tables.map(|text| format!("{text}\n"))).collect()
}

/// Whether an answer is what the client sees.
fn client_sees(lab: &Lab, ruleset: &Ruleset) -> Outcome<bool> {
    sees(&predicted(lab)?, &seen(lab)?, ruleset)
}

/// The same for a connection of the machine to itself; its answers, which go the same way, are let through first.
fn over_loopback(world: World) -> Outcome<()> {
    let before = match world {
        World::Nft => "ct state established accept\n",
        _ => "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
    };
    let lab = lab()?;
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut answers = Vec::new();
    // A refusal comes back to the very rule that sends it.
    for text in texts(world, before).into_iter().filter(|text| !text.contains("reject")) {
        let Some(ruleset) = loaded(&lab, world, text) else { continue };
        let prediction = judged(&lab, Way::Loopback, localhost, localhost)?;
        let answer = sees(&prediction, &seen_from(&lab.wsl, localhost)?, &ruleset);
        answers.push(answer.map_err(|error| format!("{error}\n{}", ruleset.text)));
    }
    judge(world, "on lo", answers)
}

/// The same for what the client sends when it has got the answer; its SYN is let in first.
fn after_the_answer(world: World) -> Outcome<()> {
    let before = match world {
        World::Nft => "ct state new accept\n",
        _ => "-A INPUT -m conntrack --ctstate NEW -j ACCEPT\n",
    };
    let lab = lab()?;
    let way = Way::Confirmation { device: Some("eth0".to_owned()), bridged: false };
    let mut answers = Vec::new();
    for text in texts(world, before) {
        let Some(ruleset) = loaded(&lab, world, text) else { continue };
        let prediction = judged(&lab, way.clone(), CLIENT, Lab::wsl_address(false))?;
        let answer = greeted(&lab).and_then(|seen| sees(&prediction, &seen, &ruleset));
        answers.push(answer.map_err(|error| format!("{error}\n{}", ruleset.text)));
    }
    judge(world, "after the answer", answers)
}

fn sees(prediction: &Prediction, seen: &str, ruleset: &Ruleset) -> Outcome<bool> {
    let (allowed, maybe) = allowed(prediction, ruleset)?;
    let right = |end: &&End| match end {
        // It may be one that nobody listens on.
        End::Passes { port: None, .. } => seen != "no answer",
        End::Passes { .. } => seen == "connected",
        End::Dropped { .. } => seen == "no answer",
        End::Rejected { .. } => seen != "connected" && seen != "no answer",
        End::Queued { .. } | End::Maybe { .. } => false,
    };
    if allowed.iter().any(right) { Ok(maybe) } else { Err(format!("predicted {prediction:?}\nbut the client saw {seen}").into()) }
}
