//! Labs that are broken twice. Machines are, and each verdict must be true all the same, and lead on to the next one.
//!
//! The oracle needs nobody: two faults of the table of scenarios, each of which printed commands mend, are put into one lab. The tracer
//! names one of them (`judge.rs`), its commands are run as printed, and the client tries again, until it is served (`play.rs`).

mod judge;
mod play;

use super::mend::Mended;
use super::{Lab, LabError, Scenario, Seen, Side, all};
use crate::probe::Detail;

pub use play::PairReport;

/// Two faults for one lab.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The one that is put in first.
    pub first: Scenario,
    /// The one that is put in after it.
    pub second: Scenario,
    /// What hangs behind WSL, for both.
    behind: Option<Side>,
}

impl Pair {
    /// Both names.
    pub fn name(&self) -> String {
        format!("{}+{}", self.first.name, self.second.name)
    }

    /// The same faults, put in the other way round.
    #[must_use]
    pub fn turned(&self) -> Self {
        Self { first: self.second.clone(), second: self.first.clone(), behind: self.behind }
    }

    /// The lab with both faults. An error where the one is in the other's way.
    pub fn lab(&self) -> Result<Lab, LabError> {
        let mut lab = Lab::of(&Scenario { behind: self.behind, ..self.first.clone() })?;
        (self.first.break_it)(&mut lab)?;
        lab.break_once_more();
        (self.second.break_it)(&mut lab)?;
        Ok(lab)
    }

    /// Both faults.
    fn faults(&self) -> [&Scenario; 2] {
        [&self.first, &self.second]
    }
}

/// The pairs that can be played on this machine, in the order of the table.
pub fn pairs() -> Vec<Pair> {
    let faults: Vec<Scenario> = all().into_iter().filter(|scenario| unfit(scenario).is_none()).collect();
    let of = |(index, first): (usize, &Scenario)| -> Vec<Pair> {
        faults[index + 1..].iter().filter_map(|second| joined(first, second)).collect()
    };
    faults.iter().enumerate().flat_map(of).collect()
}

/// So many of them, by chance; the same for the same seed.
pub fn chosen(count: usize, seed: u64) -> Vec<Pair> {
    let mut pairs = pairs();
    let mut chance = fastrand::Rng::with_seed(seed);
    chance.shuffle(&mut pairs);
    pairs.truncate(count);
    pairs.into_iter().map(|pair| if chance.bool() { pair.turned() } else { pair }).collect()
}

/// Why a scenario is no half of a pair.
fn unfit(scenario: &Scenario) -> Option<&'static str> {
    let commands = scenario.mended.is_some_and(|mended| mended != Mended::Nothing);
    match scenario {
        _ if !commands => Some("no printed command mends it"),
        Scenario { alone: true, .. } => Some("it moves the whole process"),
        Scenario { settle: Some(_), .. } => Some("something has to be waited for that another fault may keep from coming"),
        Scenario { tracers: 2.., .. } => Some("it is about tracers beside each other"),
        _ if scenario.detail != Detail::Auto => Some("it is another one, watched more or less closely"),
        Scenario { client: Seen::Connected, .. } => Some("the client is served"),
        _ if scenario.impossible().is_some() || scenario.obstacle().is_some() => Some("it cannot be played here"),
        _ => None,
    }
}

/// The pair of two faults, where one client can meet both.
fn joined(first: &Scenario, second: &Scenario) -> Option<Pair> {
    let attempt = |scenario: &Scenario| (scenario.from, scenario.target, scenario.from_port, scenario.manner);
    let behind = match (first.behind, second.behind) {
        (one, other) if one == other => one,
        (None, some) | (some, None) => some,
        (Some(Side::Container | Side::Pod), Some(Side::Container | Side::Pod)) => Some(Side::Pod),
        _ => return None,
    };
    (attempt(first) == attempt(second)).then(|| Pair { first: first.clone(), second: second.clone(), behind })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::lab::find;

    fn pair(first: &str, second: &str) -> Option<Pair> {
        joined(&find(first).unwrap(), &find(second).unwrap())
    }

    #[test]
    fn faults_that_one_client_meets_are_joined() {
        assert_eq!(pair("drop-raw-nft", "reply-drop-output").unwrap().name(), "drop-raw-nft+reply-drop-output");
        assert_eq!(pair("drop-raw-nft", "forward-drop").unwrap().behind, Some(Side::Container));
        for (first, second) in
            [("drop-raw-nft", "drop-raw-nft-v6"), ("drop-raw-nft", "reply-drop-lo"), ("drop-raw-nft", "path-mtu")]
        {
            assert!(pair(first, second).is_none(), "{first} {second}");
        }
    }

    #[test]
    fn what_no_command_mends_is_left_out() {
        for (name, fits) in [("drop-raw-nft", true), ("no-listener", false), ("healthy-v4", false), ("docker-internal", false)] {
            assert_eq!(unfit(&find(name).unwrap()).is_some_and(|why| why.contains("command")), !fits, "{name}");
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let names = |seed| chosen(20, seed).iter().map(Pair::name).collect::<Vec<_>>();
        assert_eq!(names(1), names(1));
        assert!(names(1).is_empty() || names(1) != names(2));
    }
}
