//! What a packet on its way adds to its record.

use wsltrace_common::{Counted, Flags, Flow, Record, StageCode};

use super::{
    Found, cell, copy, count_in,
    find::{carry_through_postrouting, exactly, find, find_made, seen},
    finish, forget_in_flight, last_place, now_ns, push,
};
use crate::{
    kernel::{Place, is_over_process_1},
    maps::{AWAITING, SEEN, Seen},
    packet::{Carrier, Kind, Packet},
};

/// The interface index of `lo`, in every namespace.
const LOOPBACK: u32 = 1;

/// A packet entered a stage: its journey, if there is one, gains it.
#[inline(always)]
pub fn visit(packet: &Packet, stage: StageCode, place: Place) {
    // SAFETY: a reference is valid.
    unsafe { journey_visit(packet, stage as u32, place.netns, place.ifindex) };
}

/// A global BPF function, see packet/mod.rs.
///
/// # Safety
///
/// `packet` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_visit(packet: *const Packet, stage: u32, netns: u32, ifindex: u32) -> u32 {
    // SAFETY: as the caller promises.
    let Some(packet) = (unsafe { packet.as_ref() }) else { return 0 };
    let is_made = stage == StageCode::Output as u32;
    let Some(found) = (if is_made { find_made(packet) } else { find(packet) }) else {
        is_none_of_ours(&packet.carrier);
        return 0;
    };
    if packet.kind == Kind::SYN {
        syn_enters(found.record(), packet);
    } else if packet.kind == Kind::SYN_ACK && stage == StageCode::TcEgress as u32 {
        note_alien(found.record(), packet, Place { netns, ifindex });
    }
    if let Some(last) = SEEN.get_ptr_mut(0) {
        // SAFETY: a valid map value of this CPU.
        let last = unsafe { &mut *last };
        copy(&found.record().key, &mut last.key);
        (last.skb, last.kind) = (packet.carrier.skb, packet.kind.number());
        last.cell = cell::cell_of(found.record());
    }
    let place = if netns == Place::SAME.netns { None } else { Some(Place { netns, ifindex }) };
    enters(&found, packet.kind, &packet.carrier, stage as u8, place);
    0
}

/// At one of a hook's later positions: the packet that the hook's first position read enters this stage too. False when this is
/// another packet, which has to be read. (What rewrites it meanwhile is seen at the next hook, or when it dies.)
#[inline(always)]
pub fn went_on(carrier: &Carrier, stage: StageCode) -> bool {
    // SAFETY: a reference is valid.
    seen(carrier.skb).is_some_and(|seen| unsafe { journey_goes_on(seen, carrier, stage as u32) } != 0)
}

/// A global BPF function, see packet/mod.rs. Where a task sends, an interrupt may have something else in `seen` at any moment: what decides
/// is whether the record to which it leads is that of this `sk_buff`.
///
/// # Safety
///
/// `seen` and `carrier` are null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_goes_on(seen: *const Seen, carrier: *const Carrier, stage: u32) -> u32 {
    // SAFETY: as the caller promises.
    let (Some(seen), Some(carrier)) = (unsafe { (seen.as_ref(), carrier.as_ref()) }) else { return 0 };
    let found = if seen.cell == 0 { exactly(&seen.key) } else { cell::at(seen.cell).filter(|found| found.goes_on()) };
    let Some(found) = found else { return 0 };
    u32::from(enters(&found, Kind::of(seen.kind), carrier, stage as u8, None))
}

/// This `sk_buff` carries nothing of ours, whatever it carried before.
#[inline(always)]
pub fn is_none_of_ours(carrier: &Carrier) {
    if let Some(last) = SEEN.get_ptr_mut(0) {
        // SAFETY: a valid map value of this CPU.
        let last = unsafe { &mut *last };
        if last.skb == carrier.skb {
            last.skb = 0;
        }
    }
}

/// A packet of a journey enters a stage, at the place where it was seen last if none is given; false when it goes on in another
/// `sk_buff`.
#[inline(always)]
fn enters(found: &Found, kind: Kind, carrier: &Carrier, stage: u8, place: Option<Place>) -> bool {
    let record = found.record();
    if kind == Kind::SYN {
        if record.skb != carrier.skb {
            return false;
        }
        push(record, stage, false, place.unwrap_or_else(|| last_place(record)));
        syn_passed(found, carrier, stage);
    } else if kind.is_answer() {
        if place.is_none() && record.answer_skb != carrier.skb {
            return false;
        }
        let last = Place { netns: record.answer_netns, ifindex: record.answer_ifindex };
        answer_enters(found, kind, carrier.skb, stage, place.unwrap_or(last));
    }
    true
}

/// What some stages mean for a SYN beside being entered.
#[inline(always)]
fn syn_passed(found: &Found, carrier: &Carrier, stage: u8) {
    let record = found.record();
    if stage == StageCode::TcEgress as u8 {
        record.flags |= Flags::OUTSIDE;
    } else if stage == StageCode::Postrouting as u8 {
        carry_through_postrouting(found, carrier.skb);
    } else if stage == StageCode::InputEnd as u8 {
        record.flags |= Flags::PAST_INPUT;
    }
    let after_conntrack = (stage > StageCode::PreroutingConntrack as u8 && stage <= StageCode::ForwardRest as u8)
        || (stage > StageCode::OutputConntrack as u8 && stage <= StageCode::OutputRest as u8);
    if after_conntrack && record.flags & Flags::CONNTRACK == 0 && carrier.nfct != 0 {
        record.flags |= Flags::CONNTRACK;
        record.conntrack = (carrier.nfct & 7) as u32;
    }
}

#[inline(always)]
fn answer_enters(found: &Found, kind: Kind, skb: u64, stage: u8, place: Place) {
    let record = found.record();
    // What goes out again after the answer left is a retransmission: `tcp_retransmit_synack` tells of it.
    if record.flags & Flags::ANSWER_LEFT != 0 {
        if kind == Kind::SYN_ACK && stage == StageCode::TcEgress as u8 {
            turned_aside(record, place);
        }
        return;
    }
    // A SYN that is still on its way over `lo` has no answer: this one is of an earlier attempt, made again.
    if kind == Kind::SYN_ACK && record.flags & Flags::OUTSIDE != 0 && place.ifindex == LOOPBACK {
        return;
    }
    if kind == Kind::SYN_ACK && stage == StageCode::Output as u8 && is_made_again(record, skb) {
        record.flags |= Flags::ANSWERED_AGAIN;
        // With the address of the first, which is gone, then.
        if record.answer_skb == skb {
            record.answer_skb = 0;
        }
        return;
    }
    if is_another_answer(record, skb, stage) {
        return;
    }
    if record.flags & (Flags::SYN_ACK | Flags::RESET | Flags::ICMP) == 0 && stage != StageCode::Output as u8 {
        record.flags |= Flags::ANSWER_FROM_OUTSIDE;
    }
    record.flags |= if kind == Kind::SYN_ACK {
        Flags::SYN_ACK
    } else if kind == Kind::RESET {
        Flags::RESET
    } else {
        Flags::ICMP
    };
    if stage == StageCode::Output as u8 && is_over_process_1() {
        record.flags |= Flags::OVER_PROCESS_1;
    }
    record.answer_skb = skb;
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

/// An answer that stood where it leaves is at once at another device, too: traffic control, or a program there, has sent it on or made a
/// copy. (Sent again it comes much later.)
#[inline(always)]
fn turned_aside(record: &mut Record, place: Place) {
    /// So long after it stood there; a redirect is done within one call.
    const AT_ONCE_NS: u64 = 20_000_000;
    let elsewhere = place.netns == record.netns && place.ifindex != record.ifindex;
    if elsewhere && record.flags & Flags::LOCAL == 0 && now_ns().wrapping_sub(record.last_ns) < AT_ONCE_NS {
        push(record, StageCode::TcEgress as u8, true, place);
    }
}

/// Whether a SYN-ACK in OUTPUT is not the first: that one still waits for its neighbour, or has left by another interface than its SYN
/// came by. (A VRF has one packet pass OUTPUT twice.)
#[inline(always)]
fn is_made_again(record: &Record, skb: u64) -> bool {
    let first_is_gone = record.answer_skb != skb || record.flags & Flags::ANSWER_ELSEWHERE != 0;
    record.flags & Flags::SYN_ACK != 0 && first_is_gone
}

/// Whether this is not the answer that is under way but one more: a SYN-ACK that was made again. The answer itself goes on in another
/// `sk_buff` only where copies are made, between devices and hooks.
#[inline(always)]
fn is_another_answer(record: &Record, skb: u64, stage: u8) -> bool {
    let may_be_copy =
        stage == StageCode::TcIngress as u8 || stage == StageCode::Prerouting as u8 || stage == StageCode::TcEgress as u8;
    let again = record.flags & Flags::ANSWERED_AGAIN != 0;
    record.answer_skb != skb && (again || record.answer_skb != 0 && !may_be_copy)
}

#[inline(always)]
fn syn_enters(record: &mut Record, packet: &Packet) {
    record.skb = packet.carrier.skb;
    record.consumed.time_ns = 0;
    record.flags &= !(Flags::OUTSIDE | Flags::PAST_INPUT);
    note_translation(record, packet);
}

/// What the SYN looks like now.
#[inline(always)]
pub fn note_translation(record: &mut Record, packet: &Packet) {
    if !same_flow(&packet.flow, &record.now) {
        record.flags |= Flags::TRANSLATED;
        copy(&packet.flow, &mut record.now);
    }
}

/// Word by word: a comparison of arrays is a chain of branches.
#[inline(always)]
fn same_flow(one: &Flow, other: &Flow) -> bool {
    const WORDS: usize = size_of::<Flow>() / size_of::<u64>();
    let words = |flow: &Flow| {
        // SAFETY: a flow is aligned words, of which any bytes are a value.
        unsafe { core::ptr::read_volatile((&raw const *flow).cast::<[u64; WORDS]>()) }
    };
    let ([a, b, c, d, e], [f, g, h, i, j]) = (words(one), words(other));
    (a ^ f) | (b ^ g) | (c ^ h) | (d ^ i) | (e ^ j) == 0
}

/// An answer whose source NAT did not turn back, or a rule has changed, is none to its client.
#[inline(always)]
fn note_alien(record: &mut Record, packet: &Packet, place: Place) {
    let entrance = place.netns == record.netns && place.ifindex == record.ifindex;
    let source = (packet.flow.source, packet.flow.source_port);
    // Of one that is sent again it says nothing about the first.
    let counts = record.flags & (Flags::LOCAL | Flags::ANSWER_LEFT) == 0;
    if entrance && counts && source != (record.flow.destination, record.flow.destination_port) {
        record.flags |= Flags::ANSWER_ALIEN;
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
        cell::zero(&mut record.skb);
        cell::zero(&mut record.answer_skb);
        forget_in_flight(record);
        count_in(record, Counted::AWAITING, &AWAITING);
    } else if record.death.time_ns != 0 || record.consumed.time_ns != 0 {
        finish(found);
    }
}
