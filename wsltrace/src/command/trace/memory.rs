//! Memory that only the start needed.

/// Gives it back to the machine. To load the probes takes the kernel's type information and the object in many small pieces,
/// which the C library would keep for later.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: the function takes a number and may be called at any time, from any thread.
    let released = unsafe { libc::malloc_trim(0) };
    log::debug!("memory of the start {}", if released == 1 { "given back" } else { "could not be given back" });
}

/// Only glibc can be asked to.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
