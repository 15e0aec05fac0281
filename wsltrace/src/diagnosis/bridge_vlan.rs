//! A bridge that filters by VLANs takes no frame from a port that is not in the frame's VLAN. It frees it without a reason, in a function of
//! its own that does nothing else (6.12); with `br_netfilter` that comes behind PREROUTING.

use super::case::{Case, Finding};
use crate::escape::{escape, shell_word};
use crate::journey::{Outcome, Stage};

/// A SYN that came so.
pub(super) fn of_syn(case: &Case) -> Option<Finding> {
    if case.journey.outcome != Outcome::Dropped {
        return None;
    }
    let (why, mend) = refused(case)?;
    Some(Finding::inferred(format!("dropped by a bridge: {why}")).remedy(case.where_to_type()).remedy(mend))
}

/// An answer that came so.
pub(super) fn of_answer(case: &Case) -> Option<Finding> {
    let (why, mend) = refused(case)?;
    let summary = format!("the listener answered, but its SYN-ACK was dropped by a bridge: {why}");
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend))
}

fn refused(case: &Case) -> Option<(String, [String; 2])> {
    let freed = case.reason().is_none() && case.symbol() == Some("br_allowed_ingress");
    let came_by = case.journey.stages.iter().rfind(|visit| visit.stage == Stage::TcIngress).filter(|_| freed)?;
    let port = came_by.interface.as_deref().filter(|_| !case.died_at(&[Stage::TcEgress]))?;
    let why = format!(
        "it filters by VLANs (vlan_filtering), and its port {}, by which that came, takes nothing of such a VLAN",
        escape(port)
    );
    let add = case.root(&format!("bridge vlan add dev {} vid 1 pvid untagged", shell_word(port)));
    let add = format!("# have the port take it, if that is wanted: {add}");
    Some((why, [case.root("bridge vlan show"), add]))
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::tests::expect;
    use crate::diagnosis::{Code, Confidence::Inferred};
    use crate::evidence::Evidence;
    use crate::journey::{Facts, Outcome, Stage};
    use crate::output::samples::journey;

    #[test]
    fn a_port_of_another_vlan_is_told_and_no_route() {
        let place = Some(("NOT_SPECIFIED", "br_allowed_ingress+0x244"));
        let stages = [Stage::TcIngress, Stage::SynAck, Stage::Output, Stage::TcEgress, Stage::TcIngress, Stage::Routing];
        let mut answer = journey(&stages, Outcome::AnswerDropped, Some(Stage::Routing), place);
        answer.facts = Facts { syn_ack: true, ..Facts::default() };
        answer.stages[4].interface = Some("veth1".into());
        let found = expect(&answer, &Evidence::default(), Code::ReplyDropped, Inferred);
        assert!(found.summary.contains("its port veth1, by which that came"), "{}", found.summary);
        assert_eq!(found.remedy[0], "sudo bridge vlan show");
        let syn = journey(&stages[..1], Outcome::Dropped, Some(Stage::TcIngress), place);
        expect(&syn, &Evidence::default(), Code::NoForwarding, Inferred);
        // What this machine itself gives the bridge came by no port.
        let own = journey(&[Stage::Output, Stage::TcEgress], Outcome::Dropped, Some(Stage::TcEgress), place);
        expect(&own, &Evidence::default(), Code::UnexplainedDrop, Inferred);
    }
}
