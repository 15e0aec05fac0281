//! Debug text for `--verbose`, through aya-log. The level is a read-only global: without `--verbose` the verifier removes the
//! calls. Each text is a BPF function of its own, so that its buffers do not take the probes' stack.

use aya_log_ebpf::debug;
use wsltrace_common::Record;

/// What aya-log wants to know of a context: nothing.
struct NoContext;

impl aya_ebpf::EbpfContext for NoContext {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }
}

/// A journey has begun.
#[inline(never)]
pub fn begun(port: u16, attempt: u32) {
    debug!(&NoContext, "a journey begins: client port {}, attempt {}", port, attempt);
}

/// A journey has ended.
#[inline(never)]
pub fn ended(record: &Record) {
    debug!(
        &NoContext,
        "a journey ends: client port {}, attempt {}, {} stages, flags {:x}, drop reason {}",
        record.key.port,
        record.attempt,
        record.stage_count,
        record.flags,
        record.death.reason
    );
}
