//! Atomic arithmetic. The BPF target declares no compare-and-swap, so `core`'s atomic types lack `fetch_add` and its like there although
//! the instructions exist (`lock *(u64 *)(r1 + 0) += r2`; those that give the old value since Linux 5.12); the compiler's intrinsics
//! give them.

use core::cell::UnsafeCell;

/// A global number that all CPUs add to.
#[repr(transparent)]
pub struct SharedU64(UnsafeCell<u64>);

// SAFETY: every access is one aligned load or store, or one atomic addition.
unsafe impl Sync for SharedU64 {}

impl SharedU64 {
    /// Zero.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// The present value.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: an aligned load of a static; volatile, because other CPUs write it.
        unsafe { core::ptr::read_volatile(self.0.get()) }
    }

    /// Makes it another one.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        // SAFETY: an aligned store to a static; volatile, because other CPUs read it.
        unsafe { core::ptr::write_volatile(self.0.get(), value) };
    }

    /// Adds one.
    #[inline(always)]
    pub fn increment(&self) {
        // SAFETY: the static lives for ever.
        unsafe { add(self.0.get(), 1) };
    }

    /// Takes one away.
    #[inline(always)]
    pub fn decrement(&self) {
        // SAFETY: the static lives for ever.
        unsafe { add(self.0.get(), u64::MAX) };
    }
}

/// Adds to a number in one instruction, wrapping around.
///
/// # Safety
///
/// `target` is valid and aligned.
#[inline(always)]
pub unsafe fn add(target: *mut u64, summand: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as the caller promises.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(target, summand);
    }
    // The host's compiler only lints this crate.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        (*target.cast::<core::sync::atomic::AtomicU64>()).fetch_add(summand, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Clears bits of a number; gives what it was.
///
/// # Safety
///
/// `target` is valid and aligned.
#[inline(always)]
pub unsafe fn take(target: *mut u64, bits: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as the caller promises.
    unsafe {
        core::intrinsics::atomic_and::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(target, !bits)
    }
    // The host's compiler only lints this crate.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        (*target.cast::<core::sync::atomic::AtomicU64>()).fetch_and(!bits, core::sync::atomic::Ordering::SeqCst)
    }
}

/// Makes a number that is zero another one; `false`, and what it was, when it is not zero.
///
/// # Safety
///
/// `target` is valid and aligned.
#[inline(always)]
pub unsafe fn claim(target: *mut u64, new: u64) -> (u64, bool) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as the caller promises.
    unsafe {
        core::intrinsics::atomic_cxchg::<
            u64,
            { core::intrinsics::AtomicOrdering::SeqCst },
            { core::intrinsics::AtomicOrdering::SeqCst },
        >(target, 0, new)
    }
    // The host's compiler only lints this crate.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        use core::sync::atomic::{AtomicU64, Ordering};
        match (*target.cast::<AtomicU64>()).compare_exchange(0, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(was) => (was, true),
            Err(was) => (was, false),
        }
    }
}

/// Sets bits of a number; gives what it was.
///
/// # Safety
///
/// `target` is valid and aligned.
#[inline(always)]
pub unsafe fn put(target: *mut u64, bits: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as the caller promises.
    unsafe {
        core::intrinsics::atomic_or::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(target, bits)
    }
    // The host's compiler only lints this crate.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        (*target.cast::<core::sync::atomic::AtomicU64>()).fetch_or(bits, core::sync::atomic::Ordering::SeqCst)
    }
}
