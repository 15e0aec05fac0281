//! Memory that only the start needed.

use std::io;

use procfs::process::{MMPermissions, MMapPath, Process};

/// Gives it back to the machine.
pub(super) fn give_back() {
    trim();
    if let Err(error) = unmap_code() {
        log::debug!("the code of the start stays mapped: {error}");
    }
}

/// To load the probes takes the kernel's type information and the object in many small pieces, which the C library would keep for later.
#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: the function takes a number and may be called at any time, from any thread.
    let released = unsafe { libc::malloc_trim(0) };
    log::debug!("memory of the start {}", if released == 1 { "given back" } else { "could not be given back" });
}

/// Only glibc can be asked to.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// The program's own code, of which the start ran most and tracing runs little. What is run again is mapped again, from the same pages of
/// the file.
fn unmap_code() -> Result<(), procfs::ProcError> {
    let own = Process::myself()?;
    let exe = own.exe()?;
    for map in own.maps()? {
        let is_code = map.perms == MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE;
        if !is_code || map.pathname != MMapPath::Path(exe.clone()) {
            continue;
        }
        let (start, end) = map.address;
        let (Ok(address), Ok(length)) = (usize::try_from(start), usize::try_from(end - start)) else { continue };
        let address = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: a whole mapping of a file that is not writable and that nobody has written to through it: the kernel reads the very same
        // bytes again from the file's pages when they are next touched.
        if unsafe { libc::madvise(address, length, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(())
}
