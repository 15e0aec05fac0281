//! The probes. Each gathers and returns; none changes anything: TC programs answer `TCX_NEXT`, netfilter programs `NF_ACCEPT`,
//! the socket lookup `SK_PASS` without a choice.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), expect(internal_features, reason = "see atomic.rs"))]

// The entries, in the order of a packet's way.
mod netfilter;
mod socket_lookup;
mod tc;
mod tracepoint;

mod atomic;
mod debug;
mod hooks;
mod journey;
mod kernel;
mod maps;
mod packet;

use wsltrace_common::Key;

/// What user space passes to `collect`.
#[repr(C)]
struct CollectRequest {
    key: Key,
    last_ns: u64,
}

/// Run by user space (not attached to anything): ends an overdue journey the same way as the probes do, so that the counters
/// stay exact. Answers 1 when the journey moved on since user space looked, or is gone.
///
/// # Safety
///
/// Called by the kernel with a context of the size of `CollectRequest`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub unsafe extern "C" fn collect(context: *const core::ffi::c_void) -> i32 {
    let request = context.cast::<CollectRequest>();
    // SAFETY: the kernel checked the size of the context that user space gave.
    let (key, last_ns) = unsafe { ((*request).key, (*request).last_ns) };
    i32::from(journey::collect(&key, last_ns).is_none())
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A reachable panic would be an endless loop, which the verifier refuses to load.
    loop {}
}
