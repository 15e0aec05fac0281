//! What is hooked into netfilter of one network namespace: user space puts positions only where there is something to tell
//! apart. Netlink tells it as well, but only where the kernel has `nfnetlink_hook`, which WSL's lacks.

use aya_ebpf::{helpers::bpf_get_current_task, macros::map, maps::Array};
use wsltrace_common::{
    ABSENT, HOOKS, HookList, HooksRequest, LIST_FAILED, LIST_MADE, LIST_UNCHANGED, MOST_HOOKED, NetfilterHooks, UNREADABLE,
};

use crate::kernel::{offset, read};

/// What the last run of `list_hooks` found.
#[map]
static NETFILTER_HOOKS: Array<NetfilterHooks> = Array::with_max_entries(1, 0);

/// `struct nf_hook_entry`: a function and its argument. Behind a list of them stand as many pointers to `struct nf_hook_ops`.
const ENTRY_BYTES: u64 = 16;

/// Run by user space (not attached to anything): writes what is hooked in into `NETFILTER_HOOKS`, unless that is as it was.
///
/// # Safety
///
/// Called by the kernel with a context of the size of `HooksRequest`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub unsafe extern "C" fn list_hooks(context: *mut core::ffi::c_void) -> i32 {
    let request = context.cast::<HooksRequest>();
    // SAFETY: the kernel checked the size of the context that user space gave.
    let before = unsafe { *request };
    let net = if before.net == 0 { current_net() } else { Some(before.net) };
    let Some(net) = net else { return LIST_FAILED };
    let Some(mark) = mark(net) else { return LIST_FAILED };
    if before.net == net && before.mark == mark {
        return LIST_UNCHANGED;
    }
    let Some(hooks) = NETFILTER_HOOKS.get_ptr_mut(0) else { return LIST_FAILED };
    for family in 0..2 {
        for hook in 0..HOOKS {
            // SAFETY: a valid map value; both indices are within their arrays.
            let list = unsafe { (&raw mut (*hooks).lists).cast::<HookList>().add(family * HOOKS + hook) };
            let Some(entries) = entries(net, family, hook) else { return LIST_FAILED };
            // SAFETY: a pointer into a valid map value.
            unsafe { list_hook(list, entries) };
        }
    }
    // SAFETY: as above.
    unsafe { *request = HooksRequest { net, mark } };
    LIST_MADE
}

/// The network namespace of the calling task.
#[inline(always)]
fn current_net() -> Option<u64> {
    // SAFETY: the helper has no arguments and cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let proxy: u64 = read(task + u64::from(known(offset!(task_nsproxy))?))?;
    read(proxy + u64::from(known(offset!(nsproxy_net_ns))?))
}

#[inline(always)]
fn known(offset: u32) -> Option<u32> {
    (offset != ABSENT).then_some(offset)
}

/// Address of the list of one hook; 0 when nothing is hooked in. A list is never changed but replaced by another.
#[inline(always)]
fn entries(net: u64, family: usize, hook: usize) -> Option<u64> {
    let lists = known(if family == 0 { offset!(net_nf_hooks_ipv4) } else { offset!(net_nf_hooks_ipv6) })?;
    read(net + u64::from(lists) + hook as u64 * 8)
}

/// Changes whenever a list is replaced. A new one of the same length at the place of an old one is taken for it; it can then only
/// differ in what stands in it.
#[inline(always)]
fn mark(net: u64) -> Option<u64> {
    let mut mark = 0u64;
    for family in 0..2 {
        for hook in 0..HOOKS {
            let entries = entries(net, family, hook)?;
            let count: u16 = if entries == 0 { 0 } else { read(entries)? };
            mark = mark.rotate_left(7) ^ entries ^ u64::from(count) << 48;
        }
    }
    Some(mark)
}

/// A global BPF function, see packet/mod.rs.
///
/// # Safety
///
/// `list` is null or valid.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn list_hook(list: *mut HookList, entries: u64) -> u32 {
    // SAFETY: as the caller promises.
    let Some(list) = (unsafe { list.as_mut() }) else { return 0 };
    list.count = 0;
    if entries != 0 && read_list(list, entries).is_none() {
        list.count = UNREADABLE;
    }
    0
}

#[inline(always)]
fn read_list(list: &mut HookList, entries: u64) -> Option<()> {
    let count: u16 = read(entries)?;
    list.count = u32::from(count);
    let operations = entries + u64::from(known(offset!(nf_hook_entries_hooks))?) + u64::from(count) * ENTRY_BYTES;
    let priority = u64::from(known(offset!(nf_hook_ops_priority))?);
    for index in 0..MOST_HOOKED {
        if index >= usize::from(count) {
            break;
        }
        let operation: u64 = read(operations + index as u64 * 8)?;
        *list.priorities.get_mut(index)? = read::<u32>(operation + priority)?.cast_signed();
    }
    Some(())
}
