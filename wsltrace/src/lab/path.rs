//! The way a packet must have taken: lists of stages, and matching a journey against one.

use crate::journey::Stage::{
    self, Accepted, Conntrack, Dnat, Established, Forward, ForwardFilter, ForwardMangle, ForwardSecurity, Input, InputFilter,
    InputMangle, InputSecurity, Listener, Output, OutputConntrack, OutputFilter, OutputMangle, OutputNat, OutputRaw,
    OutputSecurity, Postrouting, PostroutingMangle, Prerouting, PreroutingMangle, PreroutingRaw, Routing, Snat, SocketLookup,
    SynAck, TcEgress, TcIngress,
};

/// One expected stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It must have been entered here.
    Must(Stage),
    /// It may have been entered here: seen only where a probe happens to stand.
    May(Stage),
}

impl Step {
    fn stage(self) -> Stage {
        match self {
            Self::Must(stage) | Self::May(stage) => stage,
        }
    }
}

/// From the wire to the socket lookup.
const IN: [Stage; 13] = [
    TcIngress,
    Prerouting,
    PreroutingRaw,
    Conntrack,
    PreroutingMangle,
    Dnat,
    Routing,
    Input,
    InputMangle,
    InputFilter,
    InputSecurity,
    SocketLookup,
    Listener,
];
/// From a socket to the wire.
const OUT: [Stage; 11] = [
    Output,
    OutputRaw,
    OutputConntrack,
    OutputMangle,
    OutputNat,
    OutputFilter,
    OutputSecurity,
    Postrouting,
    PostroutingMangle,
    Snat,
    TcEgress,
];
/// From routing to the next wire.
const THROUGH: [Stage; 8] =
    [Forward, ForwardMangle, ForwardFilter, ForwardSecurity, Postrouting, PostroutingMangle, Snat, TcEgress];

fn must(stages: &[Stage]) -> Vec<Step> {
    stages.iter().copied().map(Step::Must).collect()
}

fn may(stages: &[Stage]) -> Vec<Step> {
    stages.iter().copied().map(Step::May).collect()
}

/// The stages whose positions are only taken where something is hooked in, or with `--detail full`.
const CLOSELY: [Stage; 18] = [
    PreroutingRaw,
    Conntrack,
    PreroutingMangle,
    Dnat,
    InputMangle,
    InputFilter,
    InputSecurity,
    ForwardMangle,
    ForwardFilter,
    ForwardSecurity,
    OutputRaw,
    OutputConntrack,
    OutputMangle,
    OutputNat,
    OutputFilter,
    OutputSecurity,
    PostroutingMangle,
    Snat,
];

/// What `--detail light` sees of a way.
pub(super) fn light(path: &[Step]) -> Vec<Step> {
    path.iter().filter(|step| !CLOSELY.contains(&step.stage())).copied().collect()
}

/// What `--detail auto` sees of a way that ends at `died`: there, if at an inner position, somebody stands.
pub(super) fn auto(path: &[Step], died: Option<Stage>) -> Vec<Step> {
    let last = path.iter().rposition(|step| Some(step.stage()) == died);
    let seen = path.iter().enumerate().map(|(index, step)| {
        if CLOSELY.contains(&step.stage()) && last != Some(index) { Step::May(step.stage()) } else { *step }
    });
    seen.collect()
}

/// `stages` up to `last`, with it.
fn up_to(stages: &[Stage], last: Stage) -> Vec<Step> {
    let end = stages.iter().position(|s| *s == last).map_or(stages.len(), |i| i + 1);
    must(&stages[..end])
}

/// Into WSL from outside, and no further than `last`.
pub(super) fn inbound(last: Stage) -> Vec<Step> {
    up_to(&IN, last)
}

/// The answer of a socket or firewall on its way out.
pub(super) fn answer() -> Vec<Step> {
    must(&OUT)
}

/// The answer of a socket or firewall, no further than `last`.
pub(super) fn up_to_answer(last: Stage) -> Vec<Step> {
    up_to(&OUT, last)
}

/// A connection from outside that was answered and acknowledged.
pub(super) fn established() -> Vec<Step> {
    [inbound(SocketLookup), must(&[SynAck]), answer(), must(&[Established]), may(&[Accepted])].concat()
}

/// The same with TCP Fast Open: the application may take the connection before it is established.
pub(super) fn established_early() -> Vec<Step> {
    [inbound(SocketLookup), must(&[SynAck]), answer(), may(&[Accepted]), must(&[Established]), may(&[Accepted])].concat()
}

/// The same, and the application does not take it.
pub(super) fn not_taken() -> Vec<Step> {
    [inbound(SocketLookup), must(&[SynAck]), answer(), must(&[Established])].concat()
}

/// A SYN from outside that was answered; the acknowledgement came to a later one.
pub(super) fn unconfirmed() -> Vec<Step> {
    [inbound(SocketLookup), must(&[SynAck]), answer()].concat()
}

/// A SYN that is sent again and meets the request of the first one: no listener is looked for.
pub(super) fn acknowledged_again() -> Vec<Step> {
    [inbound(InputSecurity), must(&[SynAck]), answer(), must(&[Established]), may(&[Accepted])].concat()
}

/// A connection over the loopback device: out and in again, and so does its answer.
pub(super) fn established_on_loopback() -> Vec<Step> {
    let back_in = up_to(&IN, InputSecurity);
    [answer(), inbound(SocketLookup), must(&[SynAck]), answer(), back_in, must(&[Established]), may(&[Accepted])].concat()
}

/// Through WSL, and no further than `last`.
pub(super) fn through(last: Stage) -> Vec<Step> {
    [inbound(Routing), up_to(&THROUGH, last)].concat()
}

/// What WSL sees of an answer that comes back through it; where probes stand on the way decides how much.
pub(super) fn back_through() -> Vec<Step> {
    let through = [&IN[..7], &THROUGH].concat();
    [may(&[TcEgress, TcIngress]), may(&through)].concat()
}

/// Through WSL and a bridge to the socket lookup in a container.
pub(super) fn into_container() -> Vec<Step> {
    into_container_up_to(SocketLookup)
}

/// Through WSL and a bridge into a container, and no further there than `last`.
pub(super) fn into_container_up_to(last: Stage) -> Vec<Step> {
    // Behind `docker0` stands the bridge's port, and in the container its device: each may have a probe.
    let wires = may(&[TcEgress, TcIngress]);
    [through(TcEgress), wires, inbound(last)[1..].to_vec()].concat()
}

/// On through a namespace that is no end, and no further than `last`.
pub(super) fn forwarded_up_to(last: Stage) -> Vec<Step> {
    up_to(&THROUGH, last)
}

/// Through WSL, a container and both their bridges to the socket lookup in a pod.
pub(super) fn into_pod() -> Vec<Step> {
    into_pod_up_to(SocketLookup)
}

/// The same, and no further in the pod than `last`.
pub(super) fn into_pod_up_to(last: Stage) -> Vec<Step> {
    let wires = may(&[TcEgress, TcIngress]);
    [into_container_up_to(Routing), forwarded_up_to(TcEgress), wires, inbound(last)[1..].to_vec()].concat()
}

/// Whether a journey took this way, and no other. The stages that may be there make several readings possible; one is enough.
pub(super) fn matches(path: &[Step], stages: &[Stage]) -> bool {
    match path.split_first() {
        None => stages.is_empty(),
        Some((Step::Must(want), rest)) => stages.split_first().is_some_and(|(got, left)| got == want && matches(rest, left)),
        Some((Step::May(want), rest)) => {
            stages.split_first().is_some_and(|(got, left)| got == want && matches(rest, left)) || matches(rest, stages)
        }
    }
}

/// The way as text, stages that may be missing in brackets.
pub(super) fn describe(path: &[Step]) -> String {
    let words = path.iter().map(|step| match step {
        Step::Must(stage) => stage.name().to_owned(),
        Step::May(stage) => format!("[{stage}]"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_way_is_the_documented_one() {
        assert_eq!(
            describe(&established()),
            "tc_ingress prerouting prerouting_raw conntrack prerouting_mangle dnat routing input input_mangle input_filter \
             input_security socket_lookup syn_ack output output_raw output_conntrack output_mangle output_nat output_filter \
             output_security postrouting postrouting_mangle snat tc_egress established [accepted]"
        );
    }

    #[test]
    fn required_stages_must_stand_in_order_and_nothing_else() {
        let path = [Step::Must(Input), Step::May(InputFilter), Step::Must(SocketLookup)];
        assert!(matches(&path, &[Input, SocketLookup]));
        assert!(matches(&path, &[Input, InputFilter, SocketLookup]));
        assert!(!matches(&path, &[Input, InputFilter]));
        assert!(!matches(&path, &[InputFilter, Input, SocketLookup]));
        assert!(!matches(&path, &[Input, SocketLookup, Output]));
        assert!(!matches(&path, &[]));
    }

    #[test]
    fn an_optional_stage_leaves_the_next_one_for_a_required_twin() {
        assert!(matches(&[Step::May(TcEgress), Step::Must(TcEgress)], &[TcEgress]));
    }
}
