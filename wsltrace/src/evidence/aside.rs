//! What may have sent an answer to another device than it was routed to.

use std::io;

use serde::{Deserialize, Serialize};

use super::told::OrTold as _;
use super::watched::Watched;
use super::{Evidence, TcProgram};
use crate::journey::{Aside, Journey};
use crate::kernel::filters::{self, Filter};
use crate::kernel::links;

/// A filter of tc that may have done it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Its kind, such as `u32`.
    pub kind: String,
    /// Its place among the filters (`pref`).
    pub preference: u16,
    /// Whether no other filter has that place: all of one place are deleted together.
    pub alone: bool,
    /// The name of its BPF program, which may do anything; `None` of one that redirects to the device in question.
    pub program: Option<String>,
}

impl Watched {
    /// What stands where an answer was sent to another device, and may have done it.
    pub(super) fn add_aside(&mut self, journey: &Journey, evidence: &mut Evidence) {
        let Some(aside) = journey.lost_aside().filter(|_| journey.netns == self.netns.inum()) else { return };
        let trace = self.trace.as_ref().filter(|_| !aside.seen_leaving);
        evidence.forwarder = trace.and_then(|trace| trace.forwarder(aside.from, aside.to));
        let found = self.redirects(aside).or_told(self.netns.inum(), "list the filters and programs at tc");
        (evidence.redirects, evidence.tc_programs) = found.unwrap_or_default();
    }

    fn redirects(&mut self, aside: Aside<'_>) -> io::Result<(Vec<Redirect>, Vec<TcProgram>)> {
        let links = links::list_links(&self.netns)?;
        let link = |name: &str| links.iter().find(|link| link.name == name);
        let (Some(from), Some(to)) = (link(aside.from), link(aside.to)) else { return Ok(Default::default()) };
        // A bridge sends copies to all its ports, and some devices send by others that are theirs.
        let own = to.master == Some(from.index) || to.master.is_some() && to.master == from.master;
        if aside.seen_leaving && own {
            return Ok(Default::default());
        }
        let filters = filters::at_egress(&self.netns, from.index)?;
        Ok((of_filters(&filters, to.index), self.others_at_tc(aside.from.into(), false)?))
    }
}

/// Those that redirect to the device; where none does, those that are programs.
fn of_filters(filters: &[Filter], to: u32) -> Vec<Redirect> {
    let redirect = |filter: &Filter| Redirect {
        kind: filter.kind.clone(),
        preference: filter.preference,
        alone: filters.iter().filter(|other| other.preference == filter.preference).count() == 1,
        program: filter.program.clone(),
    };
    let there: Vec<_> = filters.iter().filter(|filter| filter.redirects_to.contains(&to)).map(redirect).collect();
    if there.is_empty() { filters.iter().filter(|filter| filter.program.is_some()).map(redirect).collect() } else { there }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_redirect_there_go_before_programs_that_might() {
        let filter = |preference, program: Option<&str>, to: &[u32]| Filter {
            kind: "any".to_owned(),
            preference,
            program: program.map(str::to_owned),
            redirects_to: to.to_vec(),
        };
        let found = |filters: &[Filter]| -> Vec<_> {
            of_filters(filters, 7).into_iter().map(|found| (found.preference, found.alone)).collect()
        };
        let (there, elsewhere, program) = (filter(1, None, &[7]), filter(2, None, &[8]), filter(3, Some("vpn"), &[]));
        assert_eq!(found(&[there.clone(), elsewhere.clone(), program.clone()]), [(1, true)]);
        assert_eq!(found(&[elsewhere, program]), [(3, true)]);
        assert_eq!(found(&[there.clone(), filter(1, None, &[8])]), [(1, false)]);
        assert_eq!(found(&[filter(2, None, &[8])]), []);
    }
}
