//! Judge of what connection tracking itself refuses: its table is full, or another connection has the same ends.

use super::{
    case::{Case, Finding},
    firewall::name,
    remedy::{iptables, without_port},
};
use crate::{
    evidence::{Backend, sysctls::MOST_TRACKED},
    journey::{Stage, Translated},
};

pub(super) fn conntrack(case: &Case) -> Option<Finding> {
    // No chain can stand behind that place.
    if case.evidence.rule.is_none() && case.journey.facts.at_confirmation && case.symbol() == Some("nf_hook_slow") {
        return Some(refused_entry(case));
    }
    let named = case.evidence.rule.is_some() || case.evidence.backend.is_some();
    let own_hook = case.symbol() == Some("nf_hook_slow") && case.died_at(&[Stage::Conntrack, Stage::OutputConntrack]);
    let inside = case.symbol().is_some_and(|symbol| symbol.starts_with("nf_conntrack_") || symbol.starts_with("nf_confirm"));
    if named || !(inside || own_hook) {
        return None;
    }
    let count = case.sysctl("net.netfilter.nf_conntrack_count").and_then(|value| value.parse::<u64>().ok());
    let max = case.sysctl("net.netfilter.nf_conntrack_max").and_then(|value| value.parse::<u64>().ok());
    let full = count.zip(max).filter(|(count, max)| count >= max);
    let why = match full {
        Some((count, max)) => format!("its table is full ({count} of {max} entries)"),
        None => "its table may be full, or it met a clash".to_owned(),
    };
    let mend = full.into_iter().flat_map(|(_, max)| {
        let set = set_most_tracked(max.saturating_mul(2));
        if case.evidence.tracked_by_first { in_first_namespace(&set).to_vec() } else { vec![case.root(&set)] }
    });
    let look = case.root("sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max");
    let summary = format!("dropped in {}, most likely by connection tracking itself: {why}", case.place());
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend).remedy([look]))
}

/// Raises the limit of the table.
pub(crate) fn set_most_tracked(most: u64) -> String {
    format!("sysctl -w {MOST_TRACKED}={most}")
}

/// A command for the machine's first network namespace, in which its process 1 is mostly.
pub(crate) fn in_first_namespace(command: &str) -> [String; 2] {
    let why =
        "# only the machine's first network namespace may set that; it is that of process 1, unless you are in a container:";
    [why.to_owned(), format!("sudo nsenter -t 1 -n {command}")]
}

/// Connection tracking takes a new connection into its table when its SYN has passed all chains, and there it met another one.
fn refused_entry(case: &Case) -> Finding {
    let place = case.place();
    let Some(translated) = case.journey.translated.as_ref().filter(|now| is_from_elsewhere(now, case)) else {
        let summary = format!(
            "dropped behind {place}, most likely by connection tracking itself: it would not take the new connection into its table, as when another one has the same ends"
        );
        return Finding::inferred(summary).remedy(case.where_to_type()).remedy([case.root("conntrack -L -p tcp")]);
    };
    let source = super::case::endpoint(translated.source, translated.source_port);
    let to = super::case::endpoint(translated.destination, translated.destination_port);
    let rule = case.evidence.source_translator.as_ref();
    let by = rule.map_or_else(|| "a rule of NAT".to_owned(), name);
    let text = rule.and_then(|rule| rule.text.as_ref()).map(|text| format!(": {text}")).unwrap_or_default();
    let summary = format!(
        "dropped behind {place} by connection tracking: {by} sends it on from {source} to {to}, most likely just as another connection that still stands, and leaves no other port for it{text}"
    );
    let free = rule.and_then(|rule| without_port(rule, case.is_v6())).map(|command| case.root(&command));
    let look = free.is_none().then(|| {
        [
            "# let the rule that changes the source (snat, masquerade) choose its port itself, or from a range:".to_owned(),
            case.root("nft -a list ruleset"),
            case.root(&format!("{} -t nat -S POSTROUTING", iptables(Backend::IptablesNft, case.is_v6()))),
        ]
    });
    Finding::inferred(summary).remedy(case.where_to_type()).remedy(free).remedy(look.into_iter().flatten())
}

fn is_from_elsewhere(now: &Translated, case: &Case) -> bool {
    (now.source, now.source_port) != (case.journey.flow.source, case.journey.flow.source_port)
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{Code, Confidence::Inferred, tests::dropped, tests::expect};
    use crate::evidence::Evidence;
    use crate::journey::Stage;

    #[test]
    fn a_full_table_is_given_room_where_that_can_be_set() {
        let journey = dropped(&[Stage::TcIngress, Stage::Conntrack], "NETFILTER_DROP", "nf_hook_slow+0x7d");
        let sysctls = ["count", "max"].map(|name| (format!("net.netfilter.nf_conntrack_{name}"), "10".to_owned())).to_vec();
        let first = Evidence { sysctls, ..Evidence::default() };
        let found = expect(&journey, &first, Code::ConntrackDrop, Inferred);
        assert_eq!(found.remedy[0], "sudo sysctl -w net.netfilter.nf_conntrack_max=20");
        let other = Evidence { tracked_by_first: true, ..first };
        let found = expect(&journey, &other, Code::ConntrackDrop, Inferred);
        assert_eq!(found.remedy[1], "sudo nsenter -t 1 -n sysctl -w net.netfilter.nf_conntrack_max=20");
    }
}
