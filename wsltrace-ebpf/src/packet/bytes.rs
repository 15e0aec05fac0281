//! Where the bytes of a packet are read from.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};

use crate::kernel::{Plain, read_to};

/// Where the bytes of a packet come from.
pub(super) trait Bytes {
    /// Reads a value at a distance from the network header; `false` when it is not there.
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool;

    /// The same, by value.
    #[inline(always)]
    fn at<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        if !self.read_to(offset, value.as_mut_ptr()) {
            return None;
        }
        // SAFETY: all of it was just written, with bytes of which any are a value.
        Some(unsafe { value.assume_init() })
    }
}

/// A packet in kernel memory.
pub(super) struct Memory {
    pub(super) network_header: u64,
}

impl Bytes for Memory {
    #[inline(always)]
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool {
        read_to(self.network_header + u64::from(offset), value)
    }
}

/// A packet given to a TC program; the bytes may lie in fragments.
pub(super) struct Frame {
    pub(super) context: *mut __sk_buff,
    pub(super) link_header: u32,
}

impl Bytes for Frame {
    #[inline(always)]
    fn read_to<T: Plain>(&self, offset: u32, value: *mut T) -> bool {
        // SAFETY: the callers pass their own memory; the helper writes `size_of::<T>()` bytes to it.
        let result =
            unsafe { bpf_skb_load_bytes(self.context.cast(), self.link_header + offset, value.cast(), size_of::<T>() as u32) };
        result == 0
    }
}
