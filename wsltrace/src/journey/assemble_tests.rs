//! What becomes of records made by hand.

use wsltrace_common::{Death, Flags, StageCode};

use super::made::{
    ANSWER, NEIGH_FAILED, NETFILTER_DROP, NO_SOCKET, OF_ROUTING, RPFILTER, TO_LOOKUP, TO_ROUTING, add, answered, died, made,
    mapped, names, record,
};
use super::{Conntrack, DataDrop, Origin, Outcome, Stage};

#[test]
fn a_drop_in_a_chain_is_named_by_the_position_before_it() {
    let mut record = record(&[&TO_ROUTING, &TO_LOOKUP[..3]]);
    record.death = died(&record, NETFILTER_DROP);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::Dropped, Some(Stage::InputFilter)));
    assert_eq!((journey.reason.as_deref(), journey.location.as_deref()), (Some("NETFILTER_DROP"), Some("function+0x10")));
    assert_eq!(names(&journey).last(), Some(&Stage::InputFilter));
    assert!(journey.complete);
}

#[test]
fn the_position_behind_the_named_chains_shows_only_when_the_packet_died_there() {
    let rest = [StageCode::PreroutingRest];
    let mut there = record(&[&TO_ROUTING[..6], &rest]);
    there.death = died(&there, NETFILTER_DROP);
    let journey = made(&there);
    assert_eq!(journey.died_at, Some(Stage::Prerouting));
    assert_eq!(names(&journey)[5..], [Stage::Dnat, Stage::Prerouting]);

    let mut behind = record(&[&TO_ROUTING[..6], &rest, &TO_ROUTING[6..]]);
    behind.death = died(&behind, RPFILTER);
    let journey = made(&behind);
    assert_eq!(journey.died_at, Some(Stage::Routing));
    assert_eq!(names(&journey)[5..], [Stage::Dnat, Stage::Routing]);
}

/// `br_netfilter` calls PREROUTING on the bridge's port; routing follows the tc ingress of the bridge.
#[test]
fn behind_a_bridge_that_asks_netfilter_the_freeing_function_tells_routing() {
    let mut record = record(&[&TO_ROUTING, &[StageCode::TcIngress]]);
    record.death = Death { location: OF_ROUTING, ..died(&record, 0) };
    let journey = made(&record);
    assert_eq!(journey.died_at, Some(Stage::Routing));
    assert_eq!(names(&journey)[6..], [Stage::Routing, Stage::TcIngress, Stage::Routing]);
    record.death.location = 0x10;
    assert_eq!(made(&record).died_at, Some(Stage::TcIngress));
}

#[test]
fn routing_sees_packets_come_in_by_a_bridge_and_not_by_its_port() {
    let way = [StageCode::TcIngress, StageCode::Prerouting, StageCode::Routing];
    let mut record = record(&[&way]);
    for entry in &mut record.stages[1..3] {
        entry.ifindex = 3;
    }
    assert_eq!(made(&record).entrance(), Some("eth3"));
    // An answer that was made in another namespace, comes back by a bridge and leaves by another interface.
    let mut record = answered(record, Flags::SYN_ACK | Flags::ANSWER_ELSEWHERE, &[StageCode::Output]);
    assert_eq!(made(&record).answer_entrance(), None);
    record.stages[3].netns = 2;
    let mut record = answered(record, 0, &way);
    for (entry, ifindex) in record.stages[4..7].iter_mut().zip([4, 5, 5]) {
        entry.ifindex = ifindex;
    }
    let mut record = answered(record, 0, &[StageCode::TcEgress, StageCode::Output]);
    record.stages[8].netns = 2;
    let journey = made(&record);
    assert_eq!(journey.answer_entrance(), Some("eth5"));
    assert_eq!((journey.last_netns(), journey.entrance()), (1, Some("eth3")));
}

#[test]
fn what_netfilter_drops_behind_a_hooks_last_position_is_told_apart() {
    let mut at_filter = record(&[&TO_ROUTING, &TO_LOOKUP[..2]]);
    at_filter.death = died(&at_filter, NETFILTER_DROP);
    assert!(!made(&at_filter).facts.at_confirmation);
    let mut behind = record(&[&TO_ROUTING, &TO_LOOKUP[..2], &[StageCode::InputEnd]]);
    behind.death = died(&behind, NETFILTER_DROP);
    let journey = made(&behind);
    assert!(journey.facts.at_confirmation);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::Dropped, Some(Stage::Input)));
    behind.death = died(&behind, RPFILTER);
    assert!(!made(&behind).facts.at_confirmation);
}

#[test]
fn what_died_behind_the_answer_is_the_confirmation_or_the_first_data() {
    let answer = Flags::SYN_ACK | Flags::ANSWER_LEFT;
    let mut record = answered(record(&[&TO_ROUTING, &TO_LOOKUP]), answer | Flags::CONFIRMATION_DROPPED, &ANSWER);
    record.confirmation_death = died(&record, NETFILTER_DROP);
    let journey = made(&record);
    assert!(journey.is_unconfirmed_by_firewall() && journey.facts.data_dropped.is_none());

    // Another confirmation came through.
    record.flags |= Flags::ESTABLISHED | Flags::ACK;
    let journey = made(&record);
    assert!(!journey.is_unconfirmed_by_firewall() && journey.facts.data_dropped.is_none());

    record.flags |= Flags::DATA_DROPPED;
    let journey = made(&record);
    assert!(!journey.is_unconfirmed_by_firewall() && journey.facts.data_dropped == Some(DataDrop::Firewall));
    assert_eq!((journey.outcome, journey.reason, journey.death), (Outcome::Answered, None, None));
    record.confirmation_death = died(&record, NO_SOCKET);
    assert_eq!(made(&record).facts.data_dropped, None, "the next may get through");
}

#[test]
fn a_confirmation_that_led_nowhere_is_told_and_one_that_was_only_freed_is_not() {
    let answer = Flags::SYN_ACK | Flags::ANSWER_LEFT;
    let mut record = answered(record(&[&TO_ROUTING, &TO_LOOKUP]), answer | Flags::ACK | Flags::CONFIRMATION_DROPPED, &ANSWER);
    for (reason, location, is_misfit) in
        [(RPFILTER, 0x10, true), (NO_SOCKET, 0x10, false), (0, OF_ROUTING, true), (0, 0x10, false)]
    {
        record.confirmation_death = Death { location, ..died(&record, reason) };
        let journey = made(&record);
        assert_eq!((journey.is_unconfirmed(), journey.is_misfit()), (is_misfit, is_misfit), "{reason} {location}");
        assert_eq!((journey.outcome, journey.death.is_some()), (Outcome::Answered, is_misfit));
    }
    record.confirmation_death = died(&record, NETFILTER_DROP);
    assert!(made(&record).is_unconfirmed() && !made(&record).is_misfit());
    // Where the server is beyond this machine, a copy of the packet may end so.
    record.flags |= Flags::ANSWER_FROM_OUTSIDE;
    assert!(!made(&record).is_unconfirmed());
}

#[test]
fn an_answer_of_another_source_is_known_as_such() {
    let mut record = answered(record(&[&TO_ROUTING, &TO_LOOKUP]), Flags::SYN_ACK | Flags::ANSWER_LEFT, &ANSWER);
    assert!(!made(&record).facts.answer_alien);
    record.flags |= Flags::ANSWER_ALIEN;
    assert!(made(&record).facts.answer_alien);
}

#[test]
fn the_server_that_asks_again_did_not_get_what_came_in() {
    let answer = Flags::SYN_ACK | Flags::ANSWER_LEFT | Flags::ACK;
    let mut record = answered(record(&[&TO_ROUTING, &TO_LOOKUP]), answer, &ANSWER);
    assert!(!made(&record).is_confirmed_in_vain());
    record.flags |= Flags::SYN_ACK_AGAIN;
    assert!(made(&record).is_confirmed_in_vain());
    // A full accept queue: the server's kernel has it, and asks for another.
    record.flags |= Flags::CONFIRMATION_DROPPED;
    record.confirmation_death = died(&record, 0);
    assert!(!made(&record).is_confirmed_in_vain());
    // On another port it did not come to the server.
    record.confirmation_death = died(&record, NO_SOCKET);
    assert!(made(&record).is_confirmed_in_vain());
    record.flags |= Flags::ESTABLISHED;
    assert!(!made(&record).is_confirmed_in_vain());
}

#[test]
fn syn_ack_stands_before_its_output() {
    let record = record(&[&TO_ROUTING, &TO_LOOKUP]);
    let mut record = answered(record, Flags::SYN_ACK | Flags::ANSWER_LEFT | Flags::ESTABLISHED, &ANSWER);
    add(&mut record, StageCode::Established, false);
    let journey = made(&record);
    assert_eq!(journey.outcome, Outcome::Answered);
    let expected = [Stage::SocketLookup, Stage::SynAck, Stage::Output, Stage::Postrouting, Stage::TcEgress, Stage::Established];
    assert_eq!(names(&journey)[11..], expected);
}

#[test]
fn a_socket_of_an_ipvlan_is_sought_where_its_answer_is_made() {
    let mut record = record(&[&TO_ROUTING, &TO_LOOKUP]);
    record.death = died(&record, NO_SOCKET);
    let before = record.stage_count as usize;
    let mut record = answered(record, Flags::RESET | Flags::KERNEL_RESET | Flags::ANSWER_LEFT, &ANSWER);
    let end = |record| {
        let journey = made(&record);
        let search = journey.stages.iter().find(|visit| visit.stage == Stage::SocketLookup).map(|visit| visit.netns);
        (journey.outcome, journey.death.map(|death| death.netns), search, journey.stages[0].netns)
    };
    assert_eq!(end(record), (Outcome::Refused, Some(1), Some(1), 1));
    record.stages[before..].iter_mut().for_each(|entry| entry.netns = 9);
    assert_eq!(end(record), (Outcome::Refused, Some(9), Some(9), 1));
    // What a machine beyond answers is first seen where it comes in.
    record.flags |= Flags::ANSWER_FROM_OUTSIDE;
    assert_eq!(end(record).2, Some(1));
}

#[test]
fn a_syn_ack_that_is_sent_again_moves_nothing() {
    let mut record =
        answered(record(&[&TO_ROUTING, &TO_LOOKUP]), Flags::SYN_ACK, &[StageCode::Output, StageCode::PostroutingEnd]);
    add(&mut record, StageCode::SynAckRetransmitted, true);
    let waiting = made(&record);
    assert_eq!((waiting.outcome, names(&waiting).last()), (Outcome::Unfinished, Some(&Stage::Neighbour)));
    record.answer_death = died(&record, NEIGH_FAILED);
    let journey = made(&record);
    assert_eq!((journey.outcome, journey.died_at), (Outcome::AnswerDropped, Some(Stage::Neighbour)));
    assert_eq!(journey.reason.as_deref(), Some("NEIGH_FAILED"));
}

#[test]
fn a_packet_that_waits_for_its_neighbour_says_so() {
    let journey = made(&record(&[&TO_ROUTING, &[StageCode::Forward, StageCode::Postrouting, StageCode::PostroutingEnd]]));
    assert_eq!(journey.outcome, Outcome::Unfinished);
    assert_eq!(names(&journey).last(), Some(&Stage::Neighbour));
}

#[test]
fn translation_conntrack_origin_and_loss_come_through() {
    let mut record = record(&[&TO_ROUTING]);
    record.now.destination = mapped(9);
    record.now.destination_port = 80;
    record.flags |= Flags::TRANSLATED | Flags::CONNTRACK | Flags::LOCAL | Flags::INCOMPLETE;
    record.conntrack = 2;
    record.comm[..4].copy_from_slice(b"init");
    let journey = made(&record);
    assert_eq!(journey.last_destination(), (std::net::Ipv4Addr::new(10, 0, 0, 9).into(), 80));
    assert_eq!((journey.conntrack, journey.origin, journey.complete), (Some(Conntrack::New), Origin::WslLocalhostRelay, false));
}

#[test]
fn what_did_not_end_over_process_1_may_have_ended_untold() {
    let mut record = record(&[&TO_ROUTING]);
    assert_eq!((made(&record).outcome, made(&record).complete), (Outcome::Unfinished, true));
    record.flags |= Flags::OVER_PROCESS_1;
    assert_eq!((made(&record).outcome, made(&record).complete), (Outcome::Unfinished, false));
    record.death = died(&record, NETFILTER_DROP);
    assert_eq!((made(&record).outcome, made(&record).complete), (Outcome::Dropped, true));
}
