//! The search for a listener.

use aya_ebpf::{bindings::bpf_sk_lookup, macros::sk_lookup, programs::SkLookupContext};
use wsltrace_common::{Flags, StageCode};

use crate::{
    journey,
    maps::{SEEN, asleep, mapped},
};

const SK_PASS: u32 = 1;

/// The kernel looks for a listener. It also does so for nft's `socket` and for tproxy, before INPUT: only a lookup that
/// follows INPUT's last position counts.
#[sk_lookup]
pub fn socket_lookup(context: SkLookupContext) -> u32 {
    if !asleep() {
        let _: Option<()> = looked_up(context.lookup);
    }
    SK_PASS
}

#[inline(always)]
fn looked_up(context: *mut bpf_sk_lookup) -> Option<()> {
    const AF_INET: u32 = 2;
    // Every field is read, whatever the family: a load from either of two offsets would be one through a changed context
    // pointer, which the verifier refuses. Volatile, so that the compiler does not make it one.
    macro_rules! read {
        ($($field:tt)+) => {{
            // SAFETY: the context is valid; the verifier rewrites the access.
            unsafe { core::ptr::read_volatile(&raw const (*context).$($field)+) }
        }};
    }
    let (family, port, ipv4) = (read!(family), u16::from_be(read!(remote_port)), read!(remote_ip4));
    let ipv6 = [read!(remote_ip6[0]), read!(remote_ip6[1]), read!(remote_ip6[2]), read!(remote_ip6[3])];
    let address = if family == AF_INET { mapped(ipv4) } else { ipv6 };
    // SNAT may have given the client another end than the journey's key: the address as last seen decides.
    let found = journey::exactly(&SEEN.get(0)?.key)?;
    let record = found.record();
    if record.flags & Flags::PAST_INPUT == 0 || record.now.source_port != port || record.now.source != address {
        return None;
    }
    record.flags &= !Flags::PAST_INPUT;
    let place = journey::last_place(record);
    journey::push(record, StageCode::SocketLookup as u8, false, place);
    Some(())
}
