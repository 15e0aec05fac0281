//! What is hooked into netfilter of one network namespace, as the kernel side lists it.

/// Number of netfilter hooks of a family, in the order of `enum nf_inet_hooks`.
pub const HOOKS: usize = 5;

/// Most functions of one hook that are listed.
pub const MOST_HOOKED: usize = 64;

/// The functions of one hook.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookList {
    /// How many there are, ours included; [`UNREADABLE`] where that could not be read. At most [`MOST_HOOKED`] are listed.
    pub count: u32,
    /// Their priorities, rising: they run in this order.
    pub priorities: [i32; MOST_HOOKED],
}

/// A list that could not be read.
pub const UNREADABLE: u32 = u32::MAX;

/// The hooks of one network namespace: IPv4's, then IPv6's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetfilterHooks {
    /// By family and hook.
    pub lists: [[HookList; HOOKS]; 2],
}

/// What the program `list_hooks` is given, and gives back in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HooksRequest {
    /// Address of the namespace's `struct net`; 0 for that of the calling task.
    pub net: u64,
    /// A mark of the lists as they were found last: while it is the same nothing was hooked in or out.
    pub mark: u64,
}

/// Answer of `list_hooks`: nothing changed.
pub const LIST_UNCHANGED: i32 = 0;
/// Answer of `list_hooks`: the map `NETFILTER_HOOKS` has the lists.
pub const LIST_MADE: i32 = 1;
/// Answer of `list_hooks`: what leads to the lists could not be read.
pub const LIST_FAILED: i32 = 2;

#[cfg(feature = "user")]
mod pod {
    // SAFETY: arrays of 32-bit integers: a fixed layout without padding.
    unsafe impl aya::Pod for super::NetfilterHooks {}
}
