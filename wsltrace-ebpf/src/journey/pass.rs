//! What a packet on its way adds to its record.

use wsltrace_common::{Flags, Record, StageCode};

use super::{
    Found, copy,
    find::{carry_through_postrouting, find},
    finish, forget_in_flight, last_place, push,
};
use crate::{
    kernel::Place,
    maps::{AWAITING, DELIVERED},
    packet::{Kind, Packet},
};

/// A packet entered a stage: its journey, if there is one, gains it.
#[inline(always)]
pub fn visit(packet: &Packet, stage: StageCode, place: Place) {
    // SAFETY: a reference is valid.
    unsafe { journey_visit(packet, stage as u32, place.netns, place.ifindex) };
}

/// A global BPF function, see packet.rs.
///
/// # Safety
///
/// `packet` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_visit(packet: *const Packet, stage: u32, netns: u32, ifindex: u32) -> u32 {
    // SAFETY: as the caller promises.
    let Some(packet) = (unsafe { packet.as_ref() }) else { return 0 };
    let Some(found) = find(packet) else { return 0 };
    let record = found.record();
    let mut place = Place { netns, ifindex };
    if place.netns == Place::SAME.netns {
        place = if packet.kind.is_answer() {
            Place { netns: record.answer_netns, ifindex: record.answer_ifindex }
        } else {
            last_place(record)
        };
    }
    let stage = stage as u8;
    if packet.kind == Kind::SYN {
        syn_enters(record, packet);
        push(record, stage, false, place);
        syn_passed(&found, packet, stage);
    } else if packet.kind.is_answer() {
        answer_enters(&found, packet, stage, place);
    }
    0
}

/// What some stages mean for a SYN beside being entered.
#[inline(always)]
fn syn_passed(found: &Found, packet: &Packet, stage: u8) {
    let record = found.record();
    if stage == StageCode::TcEgress as u8 {
        record.flags |= Flags::OUTSIDE;
    } else if stage == StageCode::Postrouting as u8 {
        carry_through_postrouting(found, packet.skb);
    } else if stage == StageCode::InputEnd as u8 {
        record.flags |= Flags::PAST_INPUT;
        if let Some(delivered) = DELIVERED.get_ptr_mut(0) {
            // SAFETY: a valid map value of this CPU, read back by the lookup on this CPU before anything else is delivered.
            copy(&record.key, unsafe { &mut *delivered });
        }
    }
    let after_conntrack = (stage > StageCode::PreroutingConntrack as u8 && stage <= StageCode::ForwardRest as u8)
        || (stage > StageCode::OutputConntrack as u8 && stage <= StageCode::OutputRest as u8);
    if after_conntrack && record.flags & Flags::CONNTRACK == 0 && packet.nfct != 0 {
        record.flags |= Flags::CONNTRACK;
        record.conntrack = (packet.nfct & 7) as u32;
    }
}

#[inline(always)]
fn answer_enters(found: &Found, packet: &Packet, stage: u8, place: Place) {
    let record = found.record();
    // What goes out again after the answer left is a retransmission: `tcp_retransmit_synack` tells of it.
    if record.flags & Flags::ANSWER_LEFT != 0 {
        return;
    }
    if is_another_answer(record, packet, stage) {
        return;
    }
    if record.flags & (Flags::SYN_ACK | Flags::RESET | Flags::ICMP) == 0 && stage != StageCode::Output as u8 {
        record.flags |= Flags::ANSWER_FROM_OUTSIDE;
    }
    record.flags |= if packet.kind == Kind::SYN_ACK {
        Flags::SYN_ACK
    } else if packet.kind == Kind::RESET {
        Flags::RESET
    } else {
        Flags::ICMP
    };
    record.answer_skb = packet.skb;
    push(record, stage, true, place);
    if place.netns != record.netns {
        return;
    }
    let local = record.flags & Flags::LOCAL != 0;
    if local && stage == StageCode::InputEnd as u8 {
        answer_left(found);
    } else if !local && stage == StageCode::TcEgress as u8 {
        if place.ifindex == record.ifindex {
            answer_left(found);
        } else {
            record.flags |= Flags::ANSWER_ELSEWHERE;
        }
    }
}

/// Whether this is not the answer that is under way but one more: a SYN-ACK that is sent again while the first still waits for
/// its neighbour. The answer itself goes on in another `sk_buff` only where copies are made, between devices and hooks.
#[inline(always)]
fn is_another_answer(record: &Record, packet: &Packet, stage: u8) -> bool {
    let may_be_copy =
        stage == StageCode::TcIngress as u8 || stage == StageCode::Prerouting as u8 || stage == StageCode::TcEgress as u8;
    record.answer_skb != 0 && record.answer_skb != packet.skb && !may_be_copy
}

#[inline(always)]
fn syn_enters(record: &mut Record, packet: &Packet) {
    record.skb = packet.skb;
    record.consumed.time_ns = 0;
    record.flags &= !(Flags::OUTSIDE | Flags::PAST_INPUT);
    if packet.flow != record.now {
        record.flags |= Flags::TRANSLATED;
        copy(&packet.flow, &mut record.now);
    }
}

/// The answer stands where it leaves: at the entrance's egress, or for a local connection behind INPUT.
#[inline(always)]
fn answer_left(found: &Found) {
    let record = found.record();
    if record.flags & Flags::ANSWER_LEFT != 0 {
        return;
    }
    record.flags |= Flags::ANSWER_LEFT;
    if record.flags & Flags::SYN_ACK != 0 {
        // The probes go to sleep before these are freed; retransmissions may get their addresses.
        (record.skb, record.answer_skb) = (0, 0);
        forget_in_flight(record);
        record.flags |= Flags::AWAITING;
        AWAITING.increment();
    } else if record.death.time_ns != 0 || record.consumed.time_ns != 0 {
        finish(found);
    }
}
