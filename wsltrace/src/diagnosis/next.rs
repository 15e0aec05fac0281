//! What awaits the next attempt once the fault that was found is mended: a server that is not there, or that does not take it, or a rule that
//! stops its answer, as kill switches close both directions. It is told
//! beside the finding, for it is no event of this packet's.

use super::case::{Case, Finding, endpoint};
use super::firewall::{behind, name};
use super::listener::{Mismatch, between, who};
use super::remedy::{mend_answers, mend_further};
use super::{Code, rebind};
use crate::evidence::{Arrival, Listener};
use crate::wsl::takers;

const AND_BEHIND: &str = "# and for what stands behind that:";

/// The finding, and what stands behind it.
pub(super) fn with_next(case: &Case, code: Code, finding: Finding) -> Finding {
    match code {
        Code::FirewallDrop | Code::FirewallReject => with_server(case, finding),
        Code::ReversePathFilter | Code::NoForwarding => with_server(case, with_rules(case, finding)),
        _ => finding,
    }
}

/// The rules behind a routing that let nothing through. Those behind a rule are told with it.
fn with_rules(case: &Case, mut finding: Finding) -> Finding {
    let Some(behind) = behind(case) else { return finding };
    finding.summary.push_str(&behind);
    finding.remedy.push(AND_BEHIND.to_owned());
    // The last first: where a rule is known by its number, what is done about one behind it does not give it another.
    finding.remedy.extend(case.evidence.further.iter().rev().flat_map(|further| mend_further(case, further)));
    finding
}

fn with_server(case: &Case, mut finding: Finding) -> Finding {
    let Some(arrival) = &case.evidence.arrival else { return finding };
    if let Some(rule) = &arrival.answer_stopped_by {
        let how = if rule.verdict == "reject" { "rejected" } else { "dropped" };
        finding.summary =
            format!("{}; behind that, as the rules are now, the answer would be {how} by {}", finding.summary, name(rule));
        finding.remedy.push("# and for the answers:".to_owned());
        finding.remedy.extend(mend_answers(case, rule, arrival.port));
    }
    let device = case.interface();
    if !takers(&arrival.listeners, arrival.address, device).is_empty() {
        return finding;
    }
    let Some((what, mend)) = unserved(case, arrival) else { return finding };
    finding.summary = format!("{}; behind that, as things are now, {what}, so the client would be refused next", finding.summary);
    finding.remedy.push(AND_BEHIND.to_owned());
    finding.remedy.extend(mend);
    finding
}

/// Why nobody takes it, and what helps; `None` where a listener would, but for something that is not looked at here.
fn unserved(case: &Case, arrival: &Arrival) -> Option<(String, Vec<String>)> {
    let Arrival { address, port, listeners, .. } = arrival;
    let stands = |listener: &Listener| between(listener, *address, case.interface());
    let of = |wanted| listeners.iter().find(|listener| stands(listener) == wanted);
    if of(Mismatch::Nothing).is_some() {
        return None;
    }
    let all = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    if let Some(listener) = of(Mismatch::Address) {
        let what = format!("{} listens on {} only", who(listener), endpoint(listener.address, *port));
        return Some((what, rebind::advice(case, listener, all)));
    }
    if let Some(listener) = of(Mismatch::Family) {
        let has = if address.is_ipv4() { "IPv6" } else { "IPv4" };
        let what = format!("{} listens on {} for {has} only", who(listener), endpoint(listener.address, *port));
        return Some((what, rebind::advice(case, listener, all)));
    }
    if let Some(listener) = of(Mismatch::Device) {
        let what = format!("{} takes connections from one device only, which is another", who(listener));
        let start = format!("# start {} without binding it to a device (SO_BINDTODEVICE)", who(listener));
        return Some((what, vec![start]));
    }
    let start = "# start the server, or find the port that it really listens on:".to_owned();
    Some((format!("nothing listens on port {port}"), vec![start, case.root("ss -ltnp")]))
}
