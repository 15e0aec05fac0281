//! What iptables-save prints, of either kind of iptables.

mod options;
mod target;

use super::ruleset::{Base, Chain, Chains, Hook, Line, Place, Statement};
use super::unknown;
use crate::evidence::rules::legacy::Counted;

/// The old tables with the priorities at which they hang on every hook.
const PRIORITIES: [(&str, i64); 4] = [("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)];

/// The rules of a chain, in order.
pub(super) fn lines(saved: &[Counted], table: &str, chain: &str, ipv4: bool) -> Vec<Line> {
    let of_chain = saved.iter().filter(|line| line.number.is_some() && line.table == table && line.chain == chain);
    of_chain.map(|line| read(line, ipv4)).collect()
}

/// Adds the chains of the old iptables of one family.
pub(super) fn add_legacy(saved: &[Counted], family: &str, chains: &mut Chains) {
    for policy in saved.iter().filter(|line| line.number.is_none()) {
        let place = Place { legacy: true, family: family.to_owned(), table: policy.table.clone(), chain: policy.chain.clone() };
        let rules = lines(saved, &policy.table, &policy.chain, family == "ip");
        chains.add(Chain { place, handle: 0, base: base(policy), rules });
    }
}

fn base(policy: &Counted) -> Option<Base> {
    // Only built-in chains have a policy.
    if policy.target == "-" {
        return None;
    }
    let hook = Hook::named(&policy.chain)?;
    let nat = policy.table == "nat";
    let priority = match hook {
        _ if !nat => PRIORITIES.iter().find(|(name, _)| *name == policy.table)?.1,
        Hook::Prerouting | Hook::Output => -100,
        _ => 100,
    };
    Some(Base { hook, priority, nat, drops: policy.target == "DROP", devices: None })
}

fn read(line: &Counted, ipv4: bool) -> Line {
    let words = words(&line.text);
    // The first two are `-A` and the chain.
    let words: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
    let at = words.iter().position(|word| matches!(*word, "-j" | "-g")).unwrap_or(words.len());
    let (matches, action) = words.split_at(at);
    let (mut statements, comment) = options::read(matches, ipv4);
    statements.extend(match action {
        [] => Vec::new(),
        ["-g", chain] => vec![Statement::Verdict(super::ruleset::Verdict::Goto((*chain).to_owned()))],
        ["-j", target, options @ ..] => target::read(target, options),
        _ => vec![Statement::Anything(unknown::TARGET)],
    });
    Line { handle: None, number: line.number, comment, text: Some(line.text.clone()), statements }
}

/// The words of a line; quotes hold several together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut open, mut quoted) = (Vec::new(), String::new(), false, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => (quoted, open) = (!quoted, true),
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            other => word.push(other),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_they_are_quoted() {
        assert_eq!(
            words(r#"-A INPUT -m comment --comment "a \"q\" b" -j DROP"#),
            ["-A", "INPUT", "-m", "comment", "--comment", "a \"q\" b", "-j", "DROP"]
        );
        assert_eq!(words(r#"--log-prefix "" x"#), ["--log-prefix", "", "x"]);
    }
}
