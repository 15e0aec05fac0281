//! Labs with two faults at once: what is said of each attempt must be true, and doing what is printed must lead to a client that is
//! served. `cargo xtask pairs` tries many; `WSLTRACE_PAIRS` says how many, `WSLTRACE_SEED` which, `WSLTRACE_TEST_PAIRS` names some.

use std::error::Error;
use std::path::Path;

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use wsltrace::lab::{Ending, LabError, Pair, Seen, chosen, pairs};
use wsltrace_tests::decide;
use wsltrace_tests::examined::{answer_for, examined};
use wsltrace_tests::rulesets::setting;
use wsltrace_tests::unseen::UNSEEN;

/// The pairs that are tried when nobody says which: what a seed chooses is other pairs with every new scenario. The first were told wrongly
/// once.
const ALWAYS: &str = "pod-drop-in-node+rule-local-missing container-no-gateway+syn-other-source ipsec-block-out-published+docker-flushed \
    forwarding-off-before-drop-v6+drop-reverse-path-nft-v6 drop-raw-iptables-nft+reply-drop-output \
    route-blackhole-back+reject-reset-iptables-nft drop-mangle-nft-v6+drop-raw-nft-v6 \
    reverse-path-filter-loose+docker-flushed-legacy reply-drop-egress+drop-first-nft";
/// The pairs are shared by so many tests, which run at the same time.
const PARTS: usize = 3;

fn main() {
    let part = |part| {
        let name = format!("labs_that_are_broken_twice_are_mended_{}_of_{PARTS}", part + 1);
        Trial::ignorable_test(name.clone(), move || decide(&name, |binary| play(binary, part)))
    };
    libtest_mimic::run(&Arguments::from_args(), (0..PARTS).map(part).collect()).exit();
}

#[expect(clippy::print_stdout, reason = "what was chosen, by which it can be repeated, and what was left out")]
fn play(binary: &Path, part: usize) -> Result<(), Box<dyn Error>> {
    let (count, seed) = (setting("WSLTRACE_PAIRS", 0)?, setting("WSLTRACE_SEED", 1)?);
    let always = (count == 0).then(|| ALWAYS.to_owned());
    let wished = std::env::var("WSLTRACE_TEST_PAIRS").ok().or(always);
    let chosen = match &wished {
        Some(names) => names.split_whitespace().map(find).collect::<Result<Vec<_>, _>>()?,
        None => chosen(usize::MAX, seed),
    };
    let wanted = if wished.is_some() { chosen.len() } else { usize::try_from(count)?.div_ceil(PARTS) };
    if wished.is_none() {
        println!(
            "{wanted} of {} pairs, part {}; repeat with WSLTRACE_PAIRS={count} WSLTRACE_SEED={seed}",
            chosen.len(),
            part + 1
        );
    }
    let (mut played, mut wrong) = (0, Vec::new());
    for pair in chosen.into_iter().skip(part).step_by(PARTS) {
        if played == wanted {
            break;
        }
        match one(binary, &pair) {
            Ok(Played::LeftOut(why)) => {
                println!("left out: {}: {why}", pair.name());
                // Nobody names a pair to have it left out.
                wrong.extend(wished.is_some().then(|| format!("{}: left out: {why}", pair.name())));
            }
            Ok(Played::Right) => {
                println!("right: {}", pair.name());
                played += 1;
            }
            Ok(Played::Wrong(why)) => {
                println!("wrong: {}:\n{why}", pair.name());
                wrong.push(format!("{}:\n{why}", pair.name()));
                played += 1;
            }
            Err(error) => {
                println!("wrong: {}: {error}", pair.name());
                wrong.push(format!("{}: {error}", pair.name()));
                played += 1;
            }
        }
    }
    if played < wanted && wished.is_none() {
        wrong.push(format!("only {played} pairs could be played"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {played} wrong\n{}", wrong.len(), wrong.join("\n")).into()) }
}

/// A pair by its name.
fn find(name: &str) -> Result<Pair, String> {
    let either = pairs().into_iter().flat_map(|pair| [pair.turned(), pair]);
    either.into_iter().find(|pair| pair.name() == name).ok_or_else(|| format!("no pair is called '{name}'"))
}

/// What came of a pair.
enum Played {
    /// The faults are in each other's way, or cannot be played here: why.
    LeftOut(String),
    /// All is as it must be.
    Right,
    /// What is not.
    Wrong(String),
}

fn one(binary: &Path, pair: &Pair) -> Result<Played, Box<dyn Error>> {
    // What has to be in force before somebody else keeps clients out may be put in second.
    let turned = pair.turned();
    let (pair, lab) = match pair.lab().map(|lab| (pair, lab)).or_else(|_| turned.lab().map(|lab| (&turned, lab))) {
        Ok(made) => made,
        Err(error) => return Ok(Played::LeftOut(format!("they cannot both be put in: {}", error.chain()))),
    };
    let examined: Value = serde_json::from_slice(&examined(binary, &lab, &["--json"])?.stdout)?;
    let report = pair.play(&lab, binary);
    drop(lab);
    let mut problems = match &report.ending {
        Ending::Passed => Vec::new(),
        Ending::Failed(problems) => problems.clone(),
        Ending::Skipped(why) | Ending::Impossible(why) => return Ok(Played::LeftOut(why.clone())),
    };
    let failed = report.rounds.first().is_some_and(|round| round.client != Seen::Connected);
    let unseen = |name: &str| UNSEEN.iter().any(|(unseen, _)| *unseen == name);
    if failed && !(unseen(pair.first.name) || unseen(pair.second.name)) {
        let said = answer_for(&pair.first, &examined).filter(|said| said == "works");
        problems.extend(said.map(|said| format!("the doctor says of the client's way: {said}")));
    }
    match pair.play_turned(&report, binary) {
        Err(LabError::Unsupported(why)) => return Ok(Played::LeftOut(why)),
        turned => problems.extend(turned?),
    }
    let told = || Played::Wrong(format!("{}\n{}", problems.join("\n"), report.told()));
    Ok(if problems.is_empty() { Played::Right } else { told() })
}
