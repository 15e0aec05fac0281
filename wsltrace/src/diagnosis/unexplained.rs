//! What is told of an end that nothing else explains.

use super::{
    Confidence,
    case::{Case, Finding},
    reasons::reason_page,
    stages::stage_page,
};
use crate::{
    escape::shell_word,
    journey::{FREES_IN_ROUTING, Outcome, Stage, symbol},
};

/// Why the kernel freed it, by its reason and its function.
fn kernels_words(case: &Case) -> (Confidence, String) {
    let freed_by = case.journey.location.as_ref().map(|location| format!(" in {location}")).unwrap_or_default();
    let (confidence, why) = match (case.reason(), case.reason().and_then(reason_page)) {
        (Some(reason), Some(page)) => (Confidence::Proved, format!("{reason}, {}", page.short)),
        (Some(reason), None) => (Confidence::Proved, format!("the kernel's reason is {reason}")),
        (None, _) => (Confidence::Inferred, "the kernel gives no reason".to_owned()),
    };
    (confidence, format!("{why}{freed_by}"))
}

/// What was answered, and came to nothing as the confirmation was unfit or led nowhere.
fn led_nowhere(case: &Case) -> Finding {
    let (confidence, why) = kernels_words(case);
    let at_routing = case.journey.location.as_deref().is_some_and(|place| FREES_IN_ROUTING.contains(&symbol(place)))
        || case.reason().is_some_and(|reason| reason.starts_with("NEIGH_") || reason.starts_with("IP_"));
    let look = at_routing.then(|| super::routes::show_marks(case));
    Finding::misfit(confidence, &why).remedy(case.where_to_type()).remedy(look.into_iter().flatten())
}

/// The last row: says what is known about a drop that no other row explains.
pub(super) fn unexplained(case: &Case) -> Finding {
    if let Some(handed) = &case.evidence.handed {
        return super::handed::handed(case, handed);
    }
    if case.journey.outcome == Outcome::Unfinished {
        let place = case.journey.stages.last().map_or("an unknown place", |visit| stage_page(visit.stage).place);
        return Finding::inferred(format!("last seen in {place}; no end of it was seen in time, so why is not known"));
    }
    let (confidence, why) = kernels_words(case);
    Finding::new(confidence, format!("dropped in {}: {why}", case.place())).remedy(look(case))
}

fn look(case: &Case) -> Option<String> {
    match case.journey.died_at? {
        Stage::TcIngress | Stage::TcEgress => case.interface().map(|name| format!("ip -s -s link show dev {}", shell_word(name))),
        Stage::Routing => Some(case.root(&format!("ip route get {}", case.journey.last_destination().0))),
        Stage::SocketLookup | Stage::Listener => Some("nstat -az".to_owned()),
        _ => None,
    }
}

pub(super) fn any_drop(case: &Case) -> Option<Finding> {
    if case.journey.outcome == Outcome::Answered {
        return case.journey.is_misfit().then(|| led_nowhere(case));
    }
    Some(unexplained(case))
}
