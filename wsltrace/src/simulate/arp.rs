//! The questions and answers of IPv4 neighbours (ARP): whoever finds no hardware address sends no SYN. Only what is the same of all of
//! them is followed, a policy and rules without a condition; what a rule looks at is not simulated.

use super::ruleset::{Chain, Hook, Statement, Verdict};
use super::state::Site;
use super::unknown::{self, Because};
use super::walk::rule_of;
use super::{End, Prediction, Rulesets};

/// What a chain does with all of them.
enum Fate {
    Accepts,
    /// By the rule at this place, or by its policy.
    Drops(Option<usize>),
    Depends,
}

/// What the rules would do with the questions for this machine's hardware address and its answers; `None` where they let all pass.
pub fn predict_arp(rulesets: &Rulesets) -> Option<Prediction> {
    let mut because = Vec::new();
    for chain in rulesets.chains.all().filter(|chain| chain.place.family == "arp") {
        let Some(base) = chain.base.as_ref().filter(|base| matches!(base.hook, Hook::Input | Hook::Output)) else { continue };
        match fate(chain, base.drops) {
            Fate::Accepts => {}
            Fate::Drops(rule) => {
                let site = Site { chain: chain.place.clone(), base: chain.place.chain.clone(), rule };
                let rule = rule_of(rulesets, &site, "drop");
                return Some(Prediction { end: End::Dropped { rule, address: None, port: None, forward: false }, whole: true });
            }
            Fate::Depends => because.push(format!("arp {} {}", chain.place.table, chain.place.chain)),
        }
    }
    if rulesets.arptables {
        because.push("arptables-legacy".to_owned());
    }
    let because: Vec<Because> = because.into_iter().map(|place| Because { name: unknown::ARP.to_owned(), place }).collect();
    (!because.is_empty()).then(|| Prediction { end: End::Maybe { possible: Vec::new(), because }, whole: false })
}

fn fate(chain: &Chain, drops: bool) -> Fate {
    for (at, line) in chain.rules.iter().enumerate() {
        match line.statements.as_slice() {
            [] => {}
            [Statement::Verdict(Verdict::Accept)] => return Fate::Accepts,
            [Statement::Verdict(Verdict::Drop)] => return Fate::Drops(Some(at)),
            _ => return Fate::Depends,
        }
    }
    if drops { Fate::Drops(None) } else { Fate::Accepts }
}
