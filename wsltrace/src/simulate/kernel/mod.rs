//! The nftables rulesets as the kernel itself tells them over netlink: nobody's program is needed for that. A rule is a row of
//! expressions there that work on registers, and what they say together becomes the same statements that nft's words become.

mod dump;
mod expression;
mod field;
mod nat;
mod registers;
mod rule;
mod set;

use std::collections::HashMap;

pub(super) use self::dump::{Dump, dump};
use self::rule::Reader;
use self::set::Sets;
use super::nft::Saved;
use super::ruleset::{Chain, Chains, Line};
use crate::evidence::rules::OWN_PREFIX;

/// Reads the chains; `devices` are the names of interfaces by their numbers.
pub(super) fn parse(dump: Dump, devices: &HashMap<u32, String>, saved: &Saved<'_>, chains: &mut Chains) {
    let sets = Sets::of(dump.sets, &dump.rules);
    let mut rules: HashMap<_, Vec<_>> = HashMap::new();
    for rule in dump.rules {
        rules.entry(rule.place.clone()).or_default().push(rule);
    }
    for chain in dump.chains {
        let place = chain.place;
        let table = (place.family.clone(), place.table.clone());
        if place.table.starts_with(OWN_PREFIX) || dump.dormant.contains(&table) {
            continue;
        }
        let rules = rules.remove(&place).unwrap_or_default();
        chains.bridges |= place.family == "bridge" && (!rules.is_empty() || chain.base.as_ref().is_some_and(|base| base.drops));
        // Another number of rules is another chain, or half of it.
        let lines = saved(&place).filter(|lines| lines.len() == rules.len());
        let rules = rules.into_iter().enumerate().map(|(at, rule)| {
            let saved = lines.as_ref().and_then(|lines| lines.get(at));
            let statements = Reader::new(&sets, &place, devices).statements(&rule.expressions, saved);
            let comment = rule.comment.or_else(|| saved.and_then(|line| line.comment.clone()));
            let text = saved.and_then(|line| line.text.clone());
            Line { handle: Some(rule.handle), number: None, comment, text, statements }
        });
        let rules = rules.collect();
        chains.add(Chain { place, handle: chain.handle, base: chain.base, rules });
    }
}
