//! The rules that were named, for attempts beyond the rate at which the kernel traces: the same client's packet for the same
//! port, freed at the same place for the same reason, met the same rule in all likelihood, as long as the ruleset is the same.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Named;
use crate::journey::{Journey, Outcome, Stage};

/// How many different deaths are remembered.
const MAX_TWINS: usize = 1024;

/// What makes two deaths alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Death {
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    outcome: Outcome,
    stage: Option<Stage>,
    location: Option<String>,
}

impl Death {
    fn of(journey: &Journey) -> Self {
        let (destination, port) = journey.last_destination();
        Self {
            source: journey.flow.source,
            destination,
            port,
            outcome: journey.outcome,
            stage: journey.died_at,
            location: journey.location.clone(),
        }
    }
}

/// The rules named last, for each kind of death.
#[derive(Debug, Default)]
pub(in crate::evidence) struct Twins {
    generation: Option<u32>,
    named: HashMap<Death, Named>,
}

impl Twins {
    /// The kernel named this rule for this journey, in this generation of the ruleset.
    pub(in crate::evidence) fn remember(&mut self, journey: &Journey, generation: Option<u32>, named: &Named) {
        if self.generation != generation || self.named.len() == MAX_TWINS {
            self.named.clear();
            self.generation = generation;
        }
        self.named.insert(Death::of(journey), named.clone());
    }

    /// The rule of a journey like this one, when the ruleset has not changed since.
    pub(in crate::evidence) fn of(&self, journey: &Journey, generation: Option<u32>) -> Option<Named> {
        if generation.is_none() || self.generation != generation {
            return None;
        }
        self.named.get(&Death::of(journey)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn only_a_like_death_under_the_same_ruleset_has_a_twin() {
        let journey = samples::firewall(None).journey;
        let named = Named { rule: samples::rule(), stage: Some(Stage::InputFilter) };
        let mut twins = Twins::default();
        assert_eq!(twins.of(&journey, Some(7)), None);
        twins.remember(&journey, Some(7), &named);
        assert_eq!(twins.of(&journey, Some(7)), Some(named.clone()));
        assert_eq!(twins.of(&journey, Some(8)), None, "the ruleset has changed");
        assert_eq!(twins.of(&journey, None), None, "the ruleset is not known");
        let mut other = journey.clone();
        other.flow.source = samples::ip("198.51.100.1");
        assert_eq!(twins.of(&other, Some(7)), None, "another client");
        let mut other = journey.clone();
        other.location = Some("nf_hook_slow+0x7d".to_owned());
        assert_eq!(twins.of(&other, Some(7)), None, "another place");
        twins.remember(&journey, Some(8), &named);
        assert_eq!(twins.of(&journey, Some(7)), None);
    }
}
