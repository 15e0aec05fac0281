//! The rulesets as they would be once somebody has done what lets a packet through one rule.

use super::read::Rulesets;
use super::ruleset::{Chain, Place, Statement, Verdict};
use crate::evidence::{Backend, Rule};

/// What is done about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mend {
    /// It is deleted.
    Delete,
    /// An exception comes before it, which lets the packet through its base chain; in front of a policy likewise.
    Except,
}

impl Rulesets {
    /// With this done about a rule or policy; `None` where they do not have it.
    pub fn mended(&self, rule: &Rule, how: Mend) -> Option<Self> {
        let place = Place {
            legacy: rule.backend == Backend::IptablesLegacy,
            family: rule.family.clone(),
            table: rule.table.clone(),
            chain: rule.chain.clone(),
        };
        let chains = self.chains.with(&place, |chain| change(chain, rule, how))?;
        Some(Self { chains, ..self.clone() })
    }
}

fn change(chain: &mut Chain, rule: &Rule, how: Mend) -> Option<()> {
    if rule.handle.is_none() && rule.number.is_none() {
        chain.base.as_mut()?.drops = false;
        return Some(());
    }
    // Its line stays, since rules are told by their places.
    let line = chain.rules.iter_mut().find(|line| match rule.number {
        Some(number) => line.number == Some(number),
        None => line.handle == rule.handle,
    })?;
    line.statements = match how {
        Mend::Delete => vec![Statement::Verdict(Verdict::Continue)],
        Mend::Except => vec![Statement::Verdict(Verdict::Accept)],
    };
    Some(())
}
