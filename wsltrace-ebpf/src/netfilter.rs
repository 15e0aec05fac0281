//! The positions in netfilter's hooks.

use wsltrace_common::StageCode;

use crate::{
    journey,
    kernel::{HookState, Place, SkBuff},
    maps::asleep,
    packet::{self, Carrier, Kind, Room},
};

const NF_ACCEPT: i32 = 1;

/// `struct bpf_nf_ctx`.
#[repr(C)]
struct NetfilterContext {
    state: *const u8,
    skb: *const u8,
}

/// One entry per position, because a netfilter program is not told at which priority it runs. (A tail call into one shared
/// program would load faster, but a program array leaks on 6.18 when somebody lists maps while it is being freed: its
/// release schedules one work twice and holds a reference for each.)
///
/// aya does not know this program type, so the section only has to be one that it parses; the loader passes the real type to
/// the kernel.
macro_rules! netfilter_entries {
    ($($name:ident => $stage:ident),+ $(,)?) => {$(
        /// A netfilter position.
        ///
        /// # Safety
        ///
        /// Called by the kernel with a valid context.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "socket")]
        pub unsafe extern "C" fn $name(context: *const core::ffi::c_void) -> i32 {
            let _: Option<()> = netfilter(context.cast(), StageCode::$stage);
            NF_ACCEPT
        }
    )+};
}

netfilter_entries! {
    nf_prerouting => Prerouting,
    nf_prerouting_raw => PreroutingRaw,
    nf_prerouting_conntrack => PreroutingConntrack,
    nf_prerouting_mangle => PreroutingMangle,
    nf_prerouting_dnat => PreroutingDnat,
    nf_prerouting_rest => PreroutingRest,
    nf_routing => Routing,
    nf_input => Input,
    nf_input_mangle => InputMangle,
    nf_input_filter => InputFilter,
    nf_input_security => InputSecurity,
    nf_input_rest => InputRest,
    nf_input_end => InputEnd,
    nf_forward => Forward,
    nf_forward_mangle => ForwardMangle,
    nf_forward_filter => ForwardFilter,
    nf_forward_security => ForwardSecurity,
    nf_forward_rest => ForwardRest,
    nf_output => Output,
    nf_output_raw => OutputRaw,
    nf_output_conntrack => OutputConntrack,
    nf_output_mangle => OutputMangle,
    nf_output_nat => OutputNat,
    nf_output_filter => OutputFilter,
    nf_output_security => OutputSecurity,
    nf_output_rest => OutputRest,
    nf_postrouting => Postrouting,
    nf_postrouting_mangle => PostroutingMangle,
    nf_postrouting_snat => PostroutingSnat,
    nf_postrouting_rest => PostroutingRest,
    nf_postrouting_end => PostroutingEnd,
}

#[inline(always)]
fn netfilter(context: *const NetfilterContext, stage: StageCode) -> Option<()> {
    let entrance = matches!(stage, StageCode::Output);
    let asleep = asleep();
    if asleep && !entrance {
        return None;
    }
    // SAFETY: the kernel passes a valid context; the verifier knows its two fields.
    let (state, skb) = unsafe { (HookState((*context).state), SkBuff((*context).skb)) };
    if asleep && !state.may_connect() {
        return None;
    }
    let carrier = Carrier::of(skb);
    let place = match stage {
        StageCode::Prerouting | StageCode::Input => state.place(true),
        StageCode::Forward | StageCode::Output | StageCode::Postrouting => state.place(false),
        // What the socket lookup will look for may have been rewritten here.
        StageCode::InputEnd => Place::SAME,
        // A hook's other positions have the same place, and nearly always the same packet.
        _ if journey::went_on(&carrier, stage) => return Some(()),
        _ => Place::SAME,
    };
    let mut room = Room::new();
    let Some(packet) = packet::from_skb(skb, &mut room) else {
        journey::is_none_of_ours(&carrier);
        return None;
    };
    if packet.kind == Kind::ACK {
        journey::is_none_of_ours(&carrier);
        return None;
    }
    packet.carrier.nfct = carrier.nfct;
    if entrance && packet.kind == Kind::SYN {
        journey::enter(packet, place, true);
    } else {
        journey::visit(packet, stage, place);
    }
    Some(())
}
