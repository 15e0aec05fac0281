//! How journeys end: packets are freed, connections become established.

use wsltrace_common::{Counted, Death, FIRST_SLOT, Flags, Key, Record, StageCode};

use super::{
    Found, count_in,
    find::{OLDER_ATTEMPTS, carries, exactly, find, newest, settling, settling_alone},
    finish, forget, last_place, note, now_ns,
    pass::note_translation,
};
use crate::{
    kernel::{Place, offset, skb_netns},
    maps::{NETWORK_NAMESPACES, SETTLING, SWITCH_ACCEPT, switched_on},
    packet::{Kind, Packet},
};

/// A SYN-ACK was made and left.
const SYN_ACK_LEFT: u32 = Flags::SYN_ACK | Flags::ANSWER_LEFT;

#[inline(always)]
fn death(record: &mut Record, place: Place, location: u64, reason: u32) -> Death {
    let time_ns = now_ns();
    record.last_ns = time_ns;
    Death { time_ns, location, reason, netns: place.netns, ifindex: place.ifindex, stage_count: record.stage_count }
}

/// Whether a packet is in a namespace that is not watched: behind a veth or a macvlan it is somebody else's. Where it has no device, it
/// is so when it was last seen leaving one.
#[inline(always)]
fn out_of_sight(record: &Record, packet: &Packet) -> bool {
    let Some(netns) = skb_netns(packet.carrier.skb) else { return record.flags & Flags::OUTSIDE != 0 };
    !is_watched(netns)
}

/// `kfree_skb` fired for a packet with the key of a journey.
#[inline(always)]
pub fn dropped(packet: &Packet, location: u64, reason: u32) {
    let otherhost = offset!(reason_otherhost);
    if reason == otherhost {
        if packet.kind == Kind::SYN {
            is_for_another(packet);
        }
        return;
    }
    let Some(found) = find(packet) else {
        data_dropped(packet, location, reason);
        return;
    };
    let record = found.record();
    if packet.kind == Kind::ACK {
        confirmation_dropped(record, packet, location, reason);
        return;
    }
    if record.flags & SYN_ACK_LEFT == SYN_ACK_LEFT {
        dropped_behind_us(record, packet, location, reason);
        return;
    }
    if !carries(record, packet) {
        if packet.kind == Kind::SYN && !out_of_sight(record, packet) {
            record.stray = death(record, last_place(record), location, reason);
        }
        return;
    }
    if packet.kind.is_answer() {
        answer_dropped(&found, location, reason);
    } else if packet.kind == Kind::SYN && !out_of_sight(record, packet) {
        note_translation(record, packet);
        syn_dropped(&found, location, reason);
    }
}

/// A frame for another's hardware address was freed where it came in: no macvlan there has that address. It was never on its way to
/// anybody here, and makes no journey. A bystander's copy of what a bridge has flooded dies so elsewhere, and says nothing.
#[inline(always)]
fn is_for_another(packet: &Packet) {
    let Some(found) = find(packet) else { return };
    let record = found.record();
    if carries(record, packet) && record.stage_count == 1 && skb_netns(packet.carrier.skb) == Some(record.netns) {
        record.flags |= Flags::FOR_ANOTHER;
        finish(&found);
    }
}

#[inline(always)]
fn syn_dropped(found: &Found, location: u64, reason: u32) {
    let record = found.record();
    record.skb = 0;
    record.death = death(record, last_place(record), location, reason);
    let flags = record.flags;
    // A SYN whose SYN-ACK was made is answered, whatever frees it.
    if flags & Flags::SYN_ACK != 0 {
        return;
    }
    let answer_under_way =
        flags & (Flags::RESET | Flags::ICMP) != 0 && flags & Flags::ANSWER_LEFT == 0 && record.answer_death.time_ns == 0;
    if !answer_under_way {
        finish(found);
    }
}

#[inline(always)]
fn answer_dropped(found: &Found, location: u64, reason: u32) {
    let record = found.record();
    record.answer_skb = 0;
    if record.flags & Flags::ANSWER_LEFT != 0 {
        return;
    }
    let place = Place { netns: record.answer_netns, ifindex: record.answer_ifindex };
    record.answer_death = death(record, place, location, reason);
    if record.flags & Flags::SYN_ACK != 0 || record.death.time_ns != 0 {
        finish(found);
    }
}

/// An answer was dropped in the namespace that it left, after our place at its device, or at the socket of a client there. It may be a
/// reader's copy: which it is, user space tells by the reason, and the journey goes on.
#[inline(always)]
fn dropped_behind_us(record: &mut Record, packet: &Packet, location: u64, reason: u32) {
    if packet.kind == Kind::SYN_ACK && record.answer_death.time_ns == 0 && skb_netns(packet.carrier.skb) == Some(record.netns) {
        let place = Place { netns: record.answer_netns, ifindex: record.answer_ifindex };
        record.answer_death = death(record, place, location, reason);
    }
}

/// What the client sends to confirm a SYN-ACK is sent again and again while it is dropped: the first time tells enough.
#[inline(always)]
fn confirmation_dropped(record: &mut Record, packet: &Packet, location: u64, reason: u32) {
    if record.flags & (Flags::SYN_ACK | Flags::CONFIRMATION_DROPPED) != Flags::SYN_ACK {
        return;
    }
    note_confirmation_death(record, packet, Flags::CONFIRMATION_DROPPED, location, reason);
}

/// The first data of a connection that is held since it was made: later data has another key.
#[inline(always)]
fn data_dropped(packet: &Packet, location: u64, reason: u32) {
    if packet.kind != Kind::ACK || packet.payload_len == 0 {
        return;
    }
    let Some(found) = settling(&packet.key, 1) else { return };
    if found.record().flags & Flags::DATA_DROPPED == 0 {
        note_confirmation_death(found.record(), packet, Flags::CONFIRMATION_DROPPED | Flags::DATA_DROPPED, location, reason);
    }
}

#[inline(always)]
fn note_confirmation_death(record: &mut Record, packet: &Packet, flags: u32, location: u64, reason: u32) {
    // What a task sends has no device before it is routed.
    let own = if record.flags & Flags::LOCAL != 0 { Some(record.netns) } else { None };
    let Some(netns) = skb_netns(packet.carrier.skb).or(own) else { return };
    if is_watched(netns) {
        record.flags |= flags;
        record.confirmation_death = death(record, Place { netns, ifindex: last_place(record).ifindex }, location, reason);
    }
}

/// `consume_skb` fired for a packet with the key of a journey. For a SYN at its listener that is the normal end; without an
/// answer the listener swallowed it, which user space decides after a second of silence.
#[inline(always)]
pub fn consumed(packet: &Packet, location: u64) {
    if packet.kind != Kind::SYN {
        return;
    }
    let Some(found) = find(packet) else { return };
    let record = found.record();
    if record.skb != packet.carrier.skb || out_of_sight(record, packet) {
        return;
    }
    record.skb = 0;
    record.consumed = death(record, last_place(record), location, 0);
    if record.flags & Flags::ANSWER_LEFT != 0 && record.flags & Flags::SYN_ACK == 0 {
        finish(&found);
    }
}

/// Where the server's socket is, in the namespace `netns`: the interface is the SYN's last one there.
#[inline(always)]
fn place_of_server(record: &Record, netns: u32) -> Place {
    Place { netns, ifindex: if netns == record.syn_netns { record.syn_ifindex } else { 0 } }
}

/// Whether a namespace is watched. The events of sockets are global: in another one is somebody whom nobody would see on another machine.
#[inline(always)]
fn is_watched(netns: u32) -> bool {
    // SAFETY: only whether there is such an element matters.
    unsafe { NETWORK_NAMESPACES.get(netns) }.is_some()
}

/// The journey, if the server's namespace is watched. The SYN's last place is, so that the table of namespaces is rarely searched.
#[inline(always)]
fn watched(found: Found, netns: u32) -> Option<Found> {
    if found.record().syn_netns == netns || is_watched(netns) { Some(found) } else { None }
}

/// The held journey that led to a server's connection, in the namespace `netns`. `sequences` as for [`settling`].
#[inline(always)]
fn settling_in(key: &Key, netns: u32, sequences: u32) -> Option<Found> {
    if let Some(found) = settling_alone(key, sequences) {
        return watched(found, netns);
    }
    if is_watched(netns) { settling(key, sequences) } else { None }
}

/// The connection of this key became established, in the namespace `netns`: the journey is held a while to see what becomes of it, and older attempts that
/// wait for the same client end.
#[inline(always)]
pub fn established(key: &Key, netns: u32, accept_is_seen: bool) {
    let Some(found) = newest(key).and_then(|found| watched(found, netns)) else { return };
    if found.record().flags & Flags::OLDER_ALIVE != 0 {
        let mut older = found.record().key;
        for _ in 0..OLDER_ATTEMPTS {
            if older.slot <= FIRST_SLOT {
                break;
            }
            older.slot -= 1;
            // SAFETY: a reference is valid.
            unsafe { journey_outlived(&raw const older) };
        }
    }
    let record = found.record();
    record.flags |= Flags::ESTABLISHED | Flags::ACK;
    note(record, StageCode::Established as u8, false, place_of_server(record, netns));
    forget(record);
    if record.flags & Flags::ACCEPTED == 0 && accept_is_seen && switched_on(SWITCH_ACCEPT) {
        record.flags |= Flags::UNACCEPTED;
    }
    count_in(record, Counted::SETTLING, &SETTLING);
    record.flags |= Flags::SETTLING;
}

/// The attempt of this key, slot included, ends if it was answered: a newer one has led to the connection. A global BPF function, see
/// packet/mod.rs: in the loop above it would be followed once for each turn.
///
/// # Safety
///
/// `key` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn journey_outlived(key: *const Key) -> u32 {
    // SAFETY: as the caller promises.
    if let Some(older) = unsafe { key.as_ref() }.and_then(exactly)
        && older.record().flags & Flags::SYN_ACK != 0
    {
        older.record().flags |= Flags::ACK;
        finish(&older);
    }
    0
}

/// The application took the connection of this key. That can come before it is established: Fast Open hands connections over
/// early, and another CPU may be quicker than the one that changes the socket's state. `sequences` as for [`settling`].
#[inline(always)]
pub fn accepted(key: &Key, netns: u32, sequences: u32) {
    let found = settling_in(key, netns, sequences).or_else(|| newest(key).and_then(|found| watched(found, netns)));
    let Some(found) = found else { return };
    let record = found.record();
    record.flags = record.flags & !Flags::UNACCEPTED | Flags::ACCEPTED;
    note(record, StageCode::Accepted as u8, false, place_of_server(record, netns));
}

/// One side closed the connection of this key with a FIN, or the client reset it: what was to be seen has been seen, but for an application
/// that may still accept. `sequences` as for [`settling`]; `unsaid`: it was the server's side, which had sent no byte.
#[inline(always)]
pub fn closed(key: &Key, netns: u32, sequences: u32, unsaid: bool) {
    let Some(found) = settling_in(key, netns, sequences) else { return };
    let record = found.record();
    if record.flags & Flags::UNACCEPTED != 0 {
        return;
    }
    if unsaid {
        record.last_ns = now_ns();
        record.flags |= Flags::SERVER_CLOSED;
    }
    finish(&found);
}

/// The kernel answered by a reset what confirms the SYN-ACK of this key: no connection comes of it.
#[inline(always)]
pub fn confirmation_reset(key: &Key) {
    let Some(found) = newest(key) else { return };
    let record = found.record();
    if record.flags & (Flags::SYN_ACK | Flags::ESTABLISHED) == Flags::SYN_ACK {
        record.flags |= Flags::KERNEL_RESET;
    }
}

/// The server's side reset the connection of this key before it had sent a byte.
#[inline(always)]
pub fn reset_by_server(key: &Key, netns: u32) {
    let Some(found) = settling_in(key, netns, 1) else { return };
    let record = found.record();
    record.last_ns = now_ns();
    record.flags |= Flags::SERVER_RESET;
    finish(&found);
}
