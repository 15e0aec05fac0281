//! The system calls that aya does not make: loading programs of types that it does not know, linking netfilter programs,
//! running a program by hand, reading a hash map many entries at a time, and looking at programs. Nothing else in the tracer
//! calls bpf(2); the lab does, where it plays somebody else.

use std::ffi::{CStr, c_char};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Pod;
use aya::programs::{
    ProgramError,
    links::{LinkError, LinkType},
    loaded_links, loaded_programs,
};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_func_info, bpf_insn, bpf_prog_info, bpf_prog_type};

/// The types of the programs that are not loaded by aya.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramType {
    /// `BPF_PROG_TYPE_SYSCALL`: run by `BPF_PROG_TEST_RUN`, attached to nothing.
    Syscall,
    /// `BPF_PROG_TYPE_NETFILTER`.
    Netfilter,
    /// `BPF_PROG_TYPE_TRACING` on a trace event; `id`: the number of the type `btf_trace_NAME` in the kernel's BTF.
    TracePoint { id: u32 },
    /// `BPF_PROG_TYPE_TRACING` on the entry of a function; `id`: the number of the function in the kernel's BTF.
    FunctionEntry { id: u32 },
}

const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_PROG_TYPE_SYSCALL: u32 = 31;
const BPF_PROG_TYPE_NETFILTER: u32 = 32;
const BPF_TRACE_RAW_TP: u32 = 23;
const BPF_TRACE_FENTRY: u32 = 24;

/// A program ready to be loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    /// The instructions, those of the functions that it calls included.
    pub(super) instructions: &'a [bpf_insn],
    /// Where each function begins, and its type.
    pub(super) functions: &'a [bpf_func_info],
    /// The types, as loaded into the kernel.
    pub(super) btf: BorrowedFd<'a>,
}

const BPF_NETFILTER: u32 = 45;
const BPF_F_SLEEPABLE: u32 = 1 << 4;
const LOG_BYTES: usize = 1 << 20;

/// A program that the kernel did not take, with the verifier's words when it was the verifier.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses the program {name}{}", if log.is_empty() { String::new() } else { format!(":\n{log}") })]
pub struct LoadError {
    name: String,
    log: String,
    source: io::Error,
}

impl LoadError {
    /// What the system call said.
    pub(super) fn reason(&self) -> &io::Error {
        &self.source
    }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole `bpf_attr`; the pointers in it are to buffers that outlive the call (see the callers).
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_uint, &raw mut *attr, mem::size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn empty_attr() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zeroes are a value.
    unsafe { mem::zeroed() }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads type information.
pub(super) fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_BTF_LOAD; all of it is zero.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    owned(bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr)?)
}

/// Loads a program. The log is asked for only after a refusal: writing it costs time.
pub(super) fn load_program(kind: ProgramType, name: &str, code: Code<'_>) -> Result<OwnedFd, LoadError> {
    if let Ok(fd) = try_load(kind, name, code, &mut []) {
        return Ok(fd);
    }
    let mut log = vec![0; LOG_BYTES];
    try_load(kind, name, code, &mut log).map_err(|source| {
        let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        LoadError { name: name.to_owned(), log: text.trim_end().to_owned(), source }
    })
}

fn try_load(kind: ProgramType, name: &str, code: Code<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_PROG_LOAD; all of it is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    match kind {
        ProgramType::Netfilter => (load.prog_type, load.expected_attach_type) = (BPF_PROG_TYPE_NETFILTER, BPF_NETFILTER),
        ProgramType::Syscall => (load.prog_type, load.prog_flags) = (BPF_PROG_TYPE_SYSCALL, BPF_F_SLEEPABLE),
        ProgramType::TracePoint { id } => {
            (load.prog_type, load.expected_attach_type, load.attach_btf_id) = (BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP, id);
        }
        ProgramType::FunctionEntry { id } => {
            (load.prog_type, load.expected_attach_type, load.attach_btf_id) = (BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, id);
        }
    }
    load.insns = code.instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(code.instructions.len()).map_err(io::Error::other)?;
    load.prog_btf_fd = u32::try_from(code.btf.as_raw_fd()).map_err(io::Error::other)?;
    load.func_info = code.functions.as_ptr() as u64;
    load.func_info_cnt = u32::try_from(code.functions.len()).map_err(io::Error::other)?;
    load.func_info_rec_size = u32::try_from(mem::size_of::<bpf_func_info>()).map_err(io::Error::other)?;
    load.license = license.as_ptr() as u64;
    // The kernel keeps 15 bytes and a zero.
    for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *to = c_char::from_ne_bytes([from]);
    }
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
    }
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// The part of `bpf_attr` that `BPF_LINK_CREATE` reads for netfilter.
#[repr(C)]
#[derive(Clone, Copy)]
struct NetfilterLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// Links a netfilter program into the calling thread's network namespace. `family` is `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
pub(super) fn link_netfilter(program: impl AsFd, family: u32, hook: u32, priority: i32) -> io::Result<OwnedFd> {
    let program = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let link =
        NetfilterLink { program, target: 0, attach_type: BPF_NETFILTER, flags: 0, family, hook, priority, netfilter_flags: 0 };
    let mut attr = empty_attr();
    // SAFETY: `bpf_attr` is larger than the structure, has its alignment, and is made of integers.
    unsafe { (&raw mut attr).cast::<NetfilterLink>().write(link) };
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}

/// Puts a program of type tracing where it was loaded for.
pub(super) fn open_tracing(program: impl AsFd) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // The place is the program's own, so the name is null.
    attr.raw_tracepoint.prog_fd = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?)
}

/// Runs a syscall program with a context; gives what it returned.
pub(super) fn run(program: impl AsFd, context: &mut [u8]) -> io::Result<u32> {
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_PROG_TEST_RUN; all of it is zero.
    let test = unsafe { &mut attr.test };
    test.prog_fd = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    test.ctx_in = context.as_mut_ptr() as u64;
    test.ctx_size_in = u32::try_from(context.len()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
    // SAFETY: the same variant; the kernel has written `retval`.
    Ok(unsafe { attr.test.retval })
}

/// Reads a hash map bucket by bucket. What is there from the beginning to the end of the reading is seen exactly once, whatever
/// comes and goes meanwhile. (Going from key to key begins anew whenever the last key seen is gone.)
pub(super) struct Buckets<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
    next: Option<u32>,
}

/// More entries than a bucket ever holds: a map has at least as many buckets as entries.
const BATCH: usize = 64;

impl<K: Pod, V: Pod> Buckets<K, V> {
    /// A reading that has not begun.
    pub(super) fn new() -> Self {
        Self { keys: Vec::with_capacity(BATCH), values: Vec::with_capacity(BATCH), next: None }
    }

    /// Reads the next buckets of a map with keys `K` and values `V`, as many as fit, and whether there are more. The reading after
    /// the last begins anew.
    pub(super) fn read(&mut self, map: impl AsFd) -> io::Result<(impl Iterator<Item = (&K, &V)>, bool)> {
        self.keys.clear();
        self.values.clear();
        let mut reached = 0;
        let mut attr = empty_attr();
        // SAFETY: this is the variant of BPF_MAP_LOOKUP_BATCH; all of it is zero.
        let batch = unsafe { &mut attr.batch };
        batch.in_batch = self.next.as_ref().map_or(0, |from| &raw const *from as u64);
        batch.out_batch = &raw mut reached as u64;
        batch.keys = self.keys.as_mut_ptr() as u64;
        batch.values = self.values.as_mut_ptr() as u64;
        batch.count = u32::try_from(BATCH).map_err(io::Error::other)?;
        batch.map_fd = u32::try_from(map.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        let more = match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => true,
            // The end; what was read is valid.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
            Err(error) => return Err(error),
        };
        // SAFETY: the same variant; the kernel has written how many it gave.
        let count = unsafe { attr.batch.count } as usize;
        // SAFETY: the kernel has written that many keys and values, at most what there is room for; any bytes are a `Pod`.
        unsafe {
            self.keys.set_len(count);
            self.values.set_len(count);
        }
        self.next = more.then_some(reached);
        Ok((self.keys.iter().zip(&self.values), more))
    }
}

/// How often the kernel left out a run of this program, because it interrupted another one of the same program on its CPU.
pub(super) fn recursion_misses(program: impl AsFd) -> io::Result<u64> {
    Ok(info(program)?.recursion_misses)
}

/// Names of the `sk_lookup` programs that are attached in a network namespace, in the order in which they run.
pub(crate) fn lookup_programs(netns: impl AsFd) -> io::Result<Vec<String>> {
    const BPF_SK_LOOKUP: u32 = 36;
    let target = u32::try_from(netns.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    names(&query(target, BPF_SK_LOOKUP, 0, false)?)
}

/// Names of the programs at tc of a device of the calling thread's network namespace, in the order in which they run, each with the
/// number of the link that holds it.
pub(crate) fn tc_programs(ifindex: u32, ingress: bool) -> io::Result<Vec<(String, Option<u32>)>> {
    const BPF_TCX_INGRESS: u32 = 46;
    const BPF_TCX_EGRESS: u32 = 47;
    let all = match query(ifindex, if ingress { BPF_TCX_INGRESS } else { BPF_TCX_EGRESS }, 0, true) {
        // Kernels before 6.6 know nothing of TCX, so nothing is attached by it (seen with 6.1).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        // The device went while we looked.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
        all => all?,
    };
    let named = |(program, link)| Ok(program_name(program)?.map(|name| (name, (link != 0).then_some(link))));
    all.into_iter().map(named).filter_map(io::Result::transpose).collect()
}

/// Names of the programs that decide about the packets of a control group's sockets, those of the groups above it included.
pub(crate) fn cgroup_programs(directory: impl AsFd, ingress: bool) -> io::Result<Vec<String>> {
    const BPF_CGROUP_INET_INGRESS: u32 = 0;
    const BPF_CGROUP_INET_EGRESS: u32 = 1;
    const BPF_F_QUERY_EFFECTIVE: u32 = 1;
    let target = u32::try_from(directory.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let attach_type = if ingress { BPF_CGROUP_INET_INGRESS } else { BPF_CGROUP_INET_EGRESS };
    names(&query(target, attach_type, BPF_F_QUERY_EFFECTIVE, false)?)
}

/// Names of the BPF programs that are attached to netfilter, in any network namespace: the kernel does not say in which.
pub(crate) fn netfilter_programs() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for link in loaded_links() {
        match link {
            Ok(link) if matches!(link.link_type(), Ok(LinkType::Netfilter)) => names.extend(program_name(link.program_id())?),
            Ok(_) => {}
            // It went while we looked, or comes only now and has no number of its own yet (`bpf_link_by_id`: EAGAIN).
            Err(LinkError::SyscallError(error)) if is_no_link_now(&error.io_error) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(names)
}

fn is_no_link_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock)
}

/// Names of the BPF programs that choose among sockets that share a port (`sk_reuseport`), of any namespace: the kernel does not say which
/// sockets they are attached to.
pub(crate) fn choosing_programs() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for program in loaded_programs() {
        match program {
            Ok(program) if program.program_type() == bpf_prog_type::BPF_PROG_TYPE_SK_REUSEPORT => {
                names.push(String::from_utf8_lossy(program.name()).into_owned());
            }
            Ok(_) => {}
            // It went while we looked.
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(names)
}

/// The numbers of the programs that are attached to something, and of the links that hold them: 0 where there is none, or where
/// the kernel does not say, or is not asked: those before 6.6 refuse a question that has room for links.
fn query(target: u32, attach_type: u32, flags: u32, with_links: bool) -> io::Result<Vec<(u32, u32)>> {
    const MOST: usize = 64;
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_PROG_QUERY; all of it is zero.
    let query = unsafe { &mut attr.query };
    // A descriptor or the number of a device: the two share a place.
    query.__bindgen_anon_1.target_fd = target;
    query.attach_type = attach_type;
    query.query_flags = flags;
    query.prog_ids = programs.as_mut_ptr() as u64;
    query.link_ids = if with_links { links.as_mut_ptr() as u64 } else { 0 };
    query.__bindgen_anon_2.count = u32::try_from(MOST).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: the same variant; the kernel has written how many there are.
    let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
    Ok(programs.into_iter().zip(links).take(count).collect())
}

/// The names of these programs, each with the link that holds it; without those that went meanwhile.
fn names(programs: &[(u32, u32)]) -> io::Result<Vec<String>> {
    programs.iter().filter_map(|(program, _)| program_name(*program).transpose()).collect()
}

/// The name that a program was loaded with; `None` when it is gone.
fn program_name(id: u32) -> io::Result<Option<String>> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let program = match bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        program => owned(program?)?,
    };
    // A C character is signed on x86-64, and not on arm64: this is the same on both.
    let name = info(&program)?.name.map(|letter| letter.to_ne_bytes()[0]);
    Ok(Some(String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()))
}

fn info(program: impl AsFd) -> io::Result<bpf_prog_info> {
    // SAFETY: a structure of plain integers, for which zeroes are a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_OBJ_GET_INFO_BY_FD; all of it is zero.
    let request = unsafe { &mut attr.info };
    request.bpf_fd = u32::try_from(program.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    request.info_len = u32::try_from(mem::size_of_val(&info)).map_err(io::Error::other)?;
    request.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}
