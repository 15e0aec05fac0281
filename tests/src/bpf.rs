//! What the kernel tells of its BPF programs, and programs that do nothing, to compare with. By system calls, because the types
//! that matter here are not known to aya.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info};

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole `bpf_attr`, and what it points to outlives the call (see the callers).
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_uint, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn empty_attr() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zeroes are a value.
    unsafe { mem::zeroed() }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// An instruction on register 0.
fn instruction(code: u8, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(0, 0), off: 0, imm }
}

/// Opens a program by its id.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    owned(bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?)
}

/// A program's instructions as the verifier left them, before they are compiled: constants are folded, and what cannot be reached is
/// gone. Without the right to see kernel addresses they read as zero.
pub fn translated(program: &impl AsFd) -> io::Result<Vec<bpf_insn>> {
    let length = info(program, &mut [])?.xlated_prog_len as usize;
    let mut instructions = vec![instruction(0, 0); length / size_of::<bpf_insn>()];
    info(program, &mut instructions)?;
    Ok(instructions)
}

/// The only value of an array map, such as the one of the global variables, by the map's id.
pub fn array_value(id: u32) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let map = aya::maps::MapInfo::from_id(id)?;
    let mut value = vec![0_u8; map.value_size() as usize];
    let map = map.fd()?;
    let key = 0_u32;
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_MAP_LOOKUP_ELEM; all of it is zero.
    let lookup = unsafe { &mut attr.__bindgen_anon_2 };
    lookup.map_fd = number(&map);
    lookup.key = &raw const key as u64;
    lookup.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

fn info(program: &impl AsFd, instructions: &mut [bpf_insn]) -> io::Result<bpf_prog_info> {
    // SAFETY: a structure of plain integers, for which zeroes are a value.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    if !instructions.is_empty() {
        info.xlated_prog_insns = instructions.as_mut_ptr() as u64;
        info.xlated_prog_len = u32::try_from(mem::size_of_val(instructions)).map_err(io::Error::other)?;
    }
    let mut attr = empty_attr();
    attr.info.bpf_fd = number(program);
    attr.info.info = &raw mut info as u64;
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    if !instructions.is_empty() && info.xlated_prog_insns == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the kernel does not show translated programs"));
    }
    Ok(info)
}

/// Where a program that does nothing is attached, in the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// TCX on the device with this index: ingress or egress.
    Tcx {
        /// The device.
        ifindex: u32,
        /// Whether ingress.
        ingress: bool,
    },
    /// Netfilter, IPv4: a hook's number.
    Netfilter(u32),
    /// The lookup of sockets in the namespace that the descriptor is of.
    SocketLookup(RawFd),
    /// A tracepoint.
    Tracepoint(&'static str),
}

/// A program of two instructions that answers what lets the packet go on; detached when dropped.
#[derive(Debug)]
pub struct Noop {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Noop {
    /// Loads and attaches it.
    pub fn attach(hook: Hook) -> io::Result<Self> {
        let (kind, attach_type, answer) = match hook {
            Hook::Tcx { ingress, .. } => (3, if ingress { 46 } else { 47 }, -1),
            Hook::Tracepoint(_) => (26, 23, 0),
            Hook::SocketLookup(_) => (30, 36, 1),
            Hook::Netfilter(_) => (32, 45, 1),
        };
        let program = load(kind, attach_type, answer, hook)?;
        let link = link(&program, attach_type, hook)?;
        Ok(Self { program, _link: link })
    }

    /// Its id.
    pub fn id(&self) -> io::Result<u32> {
        Ok(info(&self.program, &mut [])?.id)
    }
}

/// `r0 = answer; exit`.
fn load(kind: u32, attach_type: u32, answer: i32, hook: Hook) -> io::Result<OwnedFd> {
    let instructions = [instruction(0xb7, answer), instruction(0x95, 0)];
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_PROG_LOAD; all of it is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind;
    load.expected_attach_type = attach_type;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = 2;
    load.license = c"GPL".as_ptr() as u64;
    if let Hook::Tracepoint(name) = hook {
        let btf = Btf::from_sys_fs().map_err(io::Error::other)?;
        let name = format!("btf_trace_{name}");
        load.attach_btf_id = btf.id_by_type_name_kind(&name, BtfKind::Typedef).map_err(io::Error::other)?;
    }
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// The part of `bpf_attr` that `BPF_LINK_CREATE` reads: program, target, type, flags, and for netfilter family, hook and priority.
#[repr(C)]
#[derive(Clone, Copy)]
struct Link([u32; 8]);

fn link(program: &OwnedFd, attach_type: u32, hook: Hook) -> io::Result<OwnedFd> {
    const IPV4: u32 = 2;
    // No tracer and no firewall uses this one.
    const PRIORITY: u32 = 12_345;
    let mut attr = empty_attr();
    let program = number(program);
    let link = match hook {
        Hook::Tracepoint(_) => {
            attr.raw_tracepoint.prog_fd = program;
            return owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?);
        }
        Hook::Tcx { ifindex, .. } => Link([program, ifindex, attach_type, 0, 0, 0, 0, 0]),
        Hook::SocketLookup(netns) => Link([program, netns.cast_unsigned(), attach_type, 0, 0, 0, 0, 0]),
        Hook::Netfilter(hook) => Link([program, 0, attach_type, 0, IPV4, hook, PRIORITY, 0]),
    };
    // SAFETY: `bpf_attr` is larger than the structure, has its alignment, and is made of integers.
    unsafe { (&raw mut attr).cast::<Link>().write(link) };
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}
