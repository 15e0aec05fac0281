//! What a packet on its way adds to its record.

use wsltrace_common::{Flags, Record, StageCode};

use super::{Found, finish, forget_in_flight, push};
use crate::{
    kernel::Place,
    maps::AWAITING,
    packet::{Kind, Packet},
};

/// A followed packet entered a stage.
#[inline(always)]
pub fn enter(found: &Found, packet: &Packet, skb: u64, stage: u8, place: Place) {
    let record = found.record();
    if packet.kind == Kind::SYN {
        syn_enters(record, packet, skb);
        push(record, stage, false, place);
    } else if packet.kind.is_answer() {
        // What goes out again after the answer left is a retransmission: `tcp_retransmit_synack` tells of it.
        if record.flags & Flags::ANSWER_LEFT != 0 {
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
        record.answer_skb = skb;
        push(record, stage, true, place);
    }
}

#[inline(always)]
fn syn_enters(record: &mut Record, packet: &Packet, skb: u64) {
    record.skb = skb;
    record.consumed.time_ns = 0;
    record.flags &= !(Flags::OUTSIDE | Flags::PAST_INPUT);
    if packet.flow.destination_port != record.flow.destination_port
        || packet.flow.source_port != record.flow.source_port
        || packet.flow.destination != record.flow.destination
        || packet.flow.source != record.flow.source
    {
        record.flags |= Flags::TRANSLATED;
    }
    record.now = packet.flow;
}

/// The answer stands where it leaves: at the entrance's egress, or for a local connection behind INPUT.
#[inline(always)]
pub fn answer_left(found: &Found) {
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
