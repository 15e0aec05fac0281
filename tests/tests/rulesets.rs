//! Random rulesets with one known killer: the tracer must name that very rule, and no other, ever.

use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use socket2::Socket;
use wsltrace::lab::{Lab, LabError, Side};
use wsltrace_tests::decide;
use wsltrace_tests::rulesets::{
    MARK, Outcome, PORT, Ruleset, Tracer, World, connect, handle_of_killer, lab, load, name_of_killer, nft, play_each, seed,
    seen, setting,
};

/// How many rulesets are tried when `WSLTRACE_RULESETS` does not say: half of them of nft, a quarter of each iptables.
const RULESETS: u64 = 300;
/// How many are tried with and without the tracer.
const COMPARED: u64 = 60;

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

fn every_killer(binary: &Path, world: World) -> Outcome<()> {
    let share = if world == World::Nft { 2 } else { 4 };
    let count = setting("WSLTRACE_RULESETS", RULESETS)?.div_ceil(share);
    let first = seed(world.backend(), count)?;
    let played = play_each(binary, world, first..first + count, |lab, tracer, ruleset| one(lab, tracer, world, ruleset))?;
    let wrong: Vec<String> = played.into_iter().filter_map(Result::err).collect();
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
    load(lab, world, &ruleset.without_killer())?;
    Ok(format!("{killed}, then {}", seen(lab)?))
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
