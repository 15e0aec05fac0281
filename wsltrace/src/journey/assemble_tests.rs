//! Records made by hand, and what they must become.

use jiff::Timestamp;
use wsltrace_common::{Address, Death, Flags, Flow, Key, MAX_STAGES, Record, StageCode, StageEntry};

use super::assemble::{Names, assemble};
use super::{Conntrack, DataDrop, Journey, Origin, Outcome, Stage};

struct Made;

/// Where IPv6 frees what waited for a neighbour.
const OF_NDISC: u64 = 0xd15c;
/// Where IPv4 frees what has no route.
const OF_ROUTING: u64 = 0xe404;

impl Names for Made {
    fn interface(&self, _netns: u32, ifindex: u32) -> Option<super::InterfaceName> {
        Some(format!("eth{ifindex}").as_str().into())
    }

    fn reason(&self, number: u32) -> Option<String> {
        let names = ["", "NETFILTER_DROP", "NO_SOCKET", "NEIGH_FAILED", "IP_RPFILTER", "TC_EGRESS", "PACKET_SOCK_ERROR"];
        names.get(number as usize).map(|name| (*name).to_owned())
    }

    fn location(&self, address: u64) -> Option<String> {
        Some(match address {
            OF_NDISC => "ndisc_error_report+0x52".to_owned(),
            OF_ROUTING => "ip_error+0x94".to_owned(),
            _ => format!("function+{address:#x}"),
        })
    }

    fn is_relay(&self, _tgid: u32, comm: &[u8; 16]) -> bool {
        comm.starts_with(b"init\0")
    }

    fn time(&self, _monotonic_ns: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

const NETFILTER_DROP: u32 = 1;
const NO_SOCKET: u32 = 2;
const NEIGH_FAILED: u32 = 3;
const RPFILTER: u32 = 4;
const TC_EGRESS: u32 = 5;
const PACKET_SOCK_ERROR: u32 = 6;

const TO_ROUTING: [StageCode; 7] = {
    use StageCode as C;
    [C::TcIngress, C::Prerouting, C::PreroutingRaw, C::PreroutingConntrack, C::PreroutingMangle, C::PreroutingDnat, C::Routing]
};
const TO_LOOKUP: [StageCode; 6] = {
    use StageCode as C;
    [C::Input, C::InputMangle, C::InputFilter, C::InputSecurity, C::InputEnd, C::SocketLookup]
};
const ANSWER: [StageCode; 3] = [StageCode::Output, StageCode::Postrouting, StageCode::TcEgress];

fn mapped(last: u8) -> Address {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 0, 0, last])]
}

fn never() -> Death {
    Death { time_ns: 0, location: 0, reason: 0, netns: 0, ifindex: 0, stage_count: 0 }
}

/// A record whose SYN passed these stages, 1 microsecond apart.
fn record(syn: &[&[StageCode]]) -> Record {
    let flow = Flow { source: mapped(1), destination: mapped(2), source_port: 5000, destination_port: 8080, family: 4 };
    let mut record = Record {
        key: Key { address: mapped(1), sequence: 77, port: 5000, slot: 0 },
        flow,
        now: flow,
        first_ns: 1_000_000,
        last_ns: 0,
        skb: 0,
        answer_skb: 0,
        death: never(),
        consumed: never(),
        answer_death: never(),
        stray: never(),
        confirmation_death: never(),
        counted: 0,
        flags: 0,
        attempt: 1,
        netns: 1,
        ifindex: 2,
        syn_netns: 1,
        syn_ifindex: 2,
        answer_netns: 1,
        answer_ifindex: 2,
        tgid: 0,
        conntrack: 0,
        payload_len: 0,
        stage_count: 0,
        comm: [0; 16],
        stages: [StageEntry { time_and_code: 0, netns: 1, ifindex: 2 }; MAX_STAGES],
    };
    for code in syn.iter().copied().flatten() {
        add(&mut record, *code, false);
    }
    record
}

fn add(record: &mut Record, code: StageCode, answer: bool) {
    let index = record.stage_count as usize;
    let ns = 200 + 1000 * index as u64;
    let answer = if answer { StageEntry::ANSWER } else { 0 };
    record.stages[index].time_and_code = ns << StageEntry::TIME_SHIFT | answer | u64::from(code as u8);
    record.stage_count += 1;
}

fn answered(mut record: Record, flags: u32, stages: &[StageCode]) -> Record {
    record.flags |= flags;
    for code in stages {
        add(&mut record, *code, true);
    }
    record
}

fn died(record: &Record, reason: u32) -> Death {
    Death { time_ns: 1_100_000, location: 0x10, reason, netns: 1, ifindex: 2, stage_count: record.stage_count }
}

fn names(journey: &Journey) -> Vec<Stage> {
    assert!(journey.stages.windows(2).all(|pair| pair[0].ns < pair[1].ns), "{:?}", journey.stages);
    assert_eq!(journey.stages.first().map(|visit| visit.ns), Some(0));
    journey.stages.iter().map(|visit| visit.stage).collect()
}

fn made(record: &Record) -> Journey {
    assemble(record, 1, &Made)
}

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
