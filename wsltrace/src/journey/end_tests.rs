//! How journeys end, on records made by hand.

use wsltrace_common::{Flags, Record, StageCode};

use super::made::{
    ANSWER, NEIGH_FAILED, NETFILTER_DROP, NO_SOCKET, OF_NDISC, PACKET_SOCK_ERROR, TC_EGRESS, TO_LOOKUP, TO_ROUTING, answered,
    died, made, names, never, record,
};
use super::{Outcome, Stage};

#[test]
fn a_refused_syn_died_before_its_reset_went_out() {
    let record = record(&[&TO_ROUTING, &TO_LOOKUP]);
    let mut record = answered(record, Flags::RESET | Flags::KERNEL_RESET | Flags::ANSWER_LEFT, &ANSWER);
    record.death = died(&record, NO_SOCKET);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::Refused, Some(Stage::SocketLookup)));
    assert_eq!(names(&journey)[11..], [Stage::SocketLookup, Stage::Output, Stage::Postrouting, Stage::TcEgress]);
}

#[test]
fn what_leaves_by_a_vrf_is_an_answer_of_this_machine() {
    let out = [StageCode::Postrouting, StageCode::Output, StageCode::Postrouting, StageCode::TcEgress];
    let to_lookup = [&TO_ROUTING[..], &TO_ROUTING[1..], &TO_LOOKUP];
    let flags = Flags::ANSWER_FROM_OUTSIDE | Flags::ANSWER_LEFT;
    let journey = made(&answered(record(&to_lookup), flags | Flags::SYN_ACK, &out));
    assert!(!journey.facts.answer_from_outside);
    assert_eq!(names(&journey)[journey.answer.unwrap_or_default()..][..2], [Stage::SynAck, Stage::Postrouting]);
    let mut record = answered(record(&to_lookup), flags | Flags::RESET | Flags::KERNEL_RESET, &out);
    record.death = died(&record, NO_SOCKET);
    assert_eq!(made(&record).outcome, Outcome::Refused);
}

#[test]
fn a_reset_from_a_chain_at_the_device_is_a_rejection_though_it_passes_no_output() {
    let flags = Flags::RESET | Flags::ANSWER_FROM_OUTSIDE | Flags::ANSWER_LEFT;
    let mut record = answered(record(&[&[StageCode::TcIngress]]), flags, &[StageCode::TcEgress]);
    record.death = died(&record, NETFILTER_DROP);
    assert_eq!(made(&record).outcome, Outcome::Rejected);
    record.death = died(&record, NO_SOCKET);
    assert_eq!(made(&record).outcome, Outcome::Refused);
}

#[test]
fn a_firewalls_reset_is_a_rejection() {
    let record = record(&[&TO_ROUTING, &TO_LOOKUP[..3]]);
    let mut record = answered(record, Flags::RESET | Flags::ANSWER_LEFT, &ANSWER);
    record.death = died(&record, NETFILTER_DROP);
    assert_eq!(made(&record).outcome, Outcome::Rejected);
    assert_eq!(made(&record).died_at, Some(Stage::InputFilter));
}

#[test]
fn a_refusal_without_a_death_ended_where_the_syn_was_last() {
    let cases: [(&[StageCode], u32, Outcome, Stage); 4] = [
        (&TO_LOOKUP, Flags::RESET | Flags::KERNEL_RESET, Outcome::Refused, Stage::SocketLookup),
        (&TO_LOOKUP, Flags::RESET, Outcome::Refused, Stage::SocketLookup),
        (&TO_LOOKUP[..3], Flags::RESET, Outcome::Rejected, Stage::InputFilter),
        (&TO_LOOKUP[..3], Flags::ICMP, Outcome::Rejected, Stage::InputFilter),
    ];
    for (stages, flags, outcome, stage) in cases {
        let record = answered(record(&[&TO_ROUTING, stages]), flags | Flags::ANSWER_LEFT, &ANSWER);
        let journey = made(&record);
        assert_eq!((journey.outcome, journey.died_at, journey.reason.as_deref()), (outcome, Some(stage), None));
        assert_eq!(journey.death.as_ref().map(|death| death.netns), Some(1));
        assert!(!journey.complete);
    }
    // What another machine answered says nothing of where here.
    let record = answered(record(&[&TO_ROUTING]), Flags::RESET | Flags::ANSWER_FROM_OUTSIDE | Flags::OUTSIDE, &ANSWER);
    assert_eq!((made(&record).died_at, made(&record).complete), (None, true));
}

#[test]
fn ipv6_gives_up_a_neighbour_without_a_reason_of_its_own() {
    let forward = [StageCode::Forward, StageCode::Postrouting, StageCode::PostroutingEnd];
    let mut record = answered(record(&[&TO_ROUTING, &forward]), Flags::ICMP | Flags::ANSWER_LEFT, &ANSWER);
    record.death = died(&record, 0);
    assert_eq!(made(&record).died_at, Some(Stage::Postrouting));
    record.death.location = OF_NDISC;
    assert_eq!((made(&record).outcome, made(&record).died_at), (Outcome::Dropped, Some(Stage::Neighbour)));
}

#[test]
fn an_icmp_error_is_a_rejection_unless_a_neighbour_is_missing() {
    let forward = [StageCode::Forward, StageCode::Postrouting, StageCode::PostroutingEnd];
    let mut record = answered(record(&[&TO_ROUTING, &forward]), Flags::ICMP | Flags::ANSWER_LEFT, &ANSWER);
    record.death = died(&record, NEIGH_FAILED);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::Dropped, Some(Stage::Neighbour)));
    assert_eq!(
        names(&journey)[7..],
        [Stage::Forward, Stage::Postrouting, Stage::Neighbour, Stage::Output, Stage::Postrouting, Stage::TcEgress]
    );
    record.death = never();
    let unseen = made(&record);
    assert_eq!((unseen.outcome, names(&unseen)[9]), (Outcome::Unfinished, Stage::Neighbour));
    assert!(!unseen.complete && journey.complete, "its neighbour was given up, so it does not wait any longer");
    let record = self::record(&[&TO_ROUTING, &[StageCode::Forward]]);
    let mut rejected = answered(record, Flags::ICMP | Flags::ANSWER_LEFT, &ANSWER);
    rejected.death = died(&rejected, NETFILTER_DROP);
    assert_eq!(made(&rejected).outcome, Outcome::Rejected);
}

#[test]
fn a_syn_whose_syn_ack_was_made_is_answered_whatever_frees_it() {
    let record = record(&[&TO_ROUTING, &TO_LOOKUP[..5]]);
    let mut record = answered(record, Flags::SYN_ACK | Flags::ANSWER_LEFT, &ANSWER);
    record.death = died(&record, 0);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at, journey.reason), (Outcome::Answered, None, None));
}

#[test]
fn a_retransmission_that_meets_its_request_is_answered() {
    let mut record = record(&[&TO_ROUTING, &TO_LOOKUP[..5]]);
    record.death = died(&record, 0);
    assert_eq!(made(&record).outcome, Outcome::Dropped);
    record.flags |= Flags::ANSWERED_BEFORE;
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::Answered, None));
    record.death.reason = NETFILTER_DROP;
    assert_eq!(made(&record).outcome, Outcome::Dropped);
}

#[test]
fn an_answer_that_died_names_its_own_stage() {
    let record = record(&[&TO_ROUTING, &TO_LOOKUP]);
    let mut record = answered(record, Flags::SYN_ACK, &[StageCode::Output, StageCode::OutputFilter]);
    record.answer_death = died(&record, NETFILTER_DROP);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::AnswerDropped, Some(Stage::OutputFilter)));
}

#[test]
fn an_answer_dropped_behind_our_place_at_its_device_did_not_leave() {
    let flags = Flags::SYN_ACK | Flags::ANSWER_LEFT;
    let mut record = answered(record(&[&TO_ROUTING, &TO_LOOKUP]), flags, &ANSWER);
    record.answer_death = died(&record, TC_EGRESS);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::AnswerDropped, Some(Stage::TcEgress)));
    let copy_of_a_reader = Record { answer_death: died(&record, PACKET_SOCK_ERROR), ..record };
    assert_eq!(made(&copy_of_a_reader).outcome, Outcome::Answered);
    record.flags |= Flags::ACK;
    assert_eq!((made(&record).outcome, made(&record).died_at), (Outcome::Answered, None));
}

#[test]
fn a_syn_that_its_listener_swallowed_is_ignored() {
    let mut record = record(&[&TO_ROUTING, &TO_LOOKUP]);
    record.consumed = died(&record, 0);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at, journey.reason.as_deref()), (Outcome::Ignored, Some(Stage::Listener), None));
    assert_eq!(names(&journey).last(), Some(&Stage::Listener));
}

#[test]
fn a_copy_consumed_before_delivery_claims_nothing() {
    let mut record = record(&[&TO_ROUTING[..1]]);
    record.consumed = died(&record, 0);
    assert_eq!(made(&record).outcome, Outcome::Unfinished);
}

#[test]
fn a_packet_that_left_is_forwarded() {
    let mut record = record(&[&TO_ROUTING, &[StageCode::Forward, StageCode::TcEgress]]);
    record.flags |= Flags::OUTSIDE;
    assert_eq!(made(&record).outcome, Outcome::Forwarded);
}
