//! Somebody else's BPF programs, a handful of instructions each: they pass or drop packets beside the tracer's own. They are held
//! by descriptors and go with them.

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io;
use std::mem;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn};
use socket2::Socket;

use super::{LabError, Namespace, option};

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attach {
    /// The TCP packets that come in by a device, at tc.
    TcxIngress(&'static str),
    /// The TCP packets that leave by a device, at tc.
    TcxEgress(&'static str),
    /// What comes in by a device, before anything else sees it.
    Xdp(&'static str),
    /// A hook of netfilter for IPv4 (1: INPUT, 0: PREROUTING), at a priority.
    Netfilter(u32, i32),
    /// The search for a listener.
    SocketLookup,
    /// The choice among the sockets that share a port; see [`refuse_all`].
    SharedPort,
    /// What the sockets of a control group get; see [`Foreign::deciding`].
    CgroupIngress,
    /// What the sockets of a control group send; see [`Foreign::deciding`].
    CgroupEgress,
}

/// An attached program; gone when dropped.
#[derive(Debug)]
pub(super) struct Foreign {
    /// Program, link, map and socket.
    _held: Vec<OwnedFd>,
}

impl Foreign {
    /// A program that answers every packet with `verdict`.
    pub(super) fn answering(namespace: &Namespace, attach: Attach, verdict: i32) -> Result<Self, LabError> {
        let doing = format!("attach a program ({attach:?})");
        namespace.run(|| {
            let program = match attach {
                Attach::TcxIngress(_) | Attach::TcxEgress(_) => load(attach, &of_tcp(&[set(0, verdict), EXIT])),
                _ => load(attach, &[set(0, verdict), EXIT]),
            };
            let held = program.and_then(|program| Ok(vec![link(&program, attach, namespace)?, program]));
            Ok(Self { _held: held.map_err(LabError::io(doing))? })
        })
    }

    /// A program that sends the TCP packets of a device out by another one.
    pub(super) fn redirecting(namespace: &Namespace, attach: Attach, to: &str) -> Result<Self, LabError> {
        const REDIRECT: i32 = 23;
        Self::of_tcp(namespace, attach, || {
            let to = i32::try_from(nix::net::if_::if_nametoindex(to)?).map_err(io::Error::other)?;
            Ok(vec![set(1, to), set(2, 0), call(REDIRECT), EXIT])
        })
    }

    /// A program that drops TCP packets of this length with their link-layer header, bytes.
    pub(super) fn dropping_long(namespace: &Namespace, attach: Attach, length: i32) -> Result<Self, LabError> {
        const TC_ACT_SHOT: i32 = 2;
        // Another length leads on to what is said of all others.
        let is_it = [instruction(0x61, 2, 6, 0, 0), instruction(0x55, 2, 0, 2, length)];
        Self::of_tcp(namespace, attach, || Ok([is_it.as_slice(), &[set(0, TC_ACT_SHOT), EXIT]].concat()))
    }

    fn of_tcp(
        namespace: &Namespace,
        attach: Attach,
        then: impl FnOnce() -> io::Result<Vec<bpf_insn>> + Send,
    ) -> Result<Self, LabError> {
        let held = || {
            let program = load(attach, &of_tcp(&then()?))?;
            Ok(vec![link(&program, attach, namespace)?, program])
        };
        let doing = format!("attach a program ({attach:?})");
        namespace.run(|| Ok(Self { _held: held().map_err(LabError::io::<io::Error>(doing))? }))
    }

    /// A program that answers every packet of a control group's sockets with `verdict`, 1 to pass and 0 to drop.
    pub(super) fn deciding(cgroup: &File, attach: Attach, verdict: i32) -> Result<Self, LabError> {
        let held = || {
            let program = load(attach, &[set(0, verdict), EXIT])?;
            Ok(vec![create_link(LinkCreate { target: number(cgroup)?, ..LinkCreate::of(&program, attach)? })?, program])
        };
        Ok(Self { _held: held().map_err(LabError::io::<io::Error>(format!("attach a program ({attach:?})")))? })
    }

    /// A program that gives every connection to this listener, whatever address and port it asks for.
    pub(super) fn steering(namespace: &Namespace, to: TcpListener) -> Result<Self, LabError> {
        let steer = || {
            let map = map_of(&to)?;
            let program = load(Attach::SocketLookup, &steering_to(&map))?;
            let link = link(&program, Attach::SocketLookup, namespace)?;
            Ok(vec![link, program, map, to.into()])
        };
        namespace
            .run(|| Ok(Self { _held: steer().map_err(LabError::io::<io::Error>("attach a program that steers connections"))? }))
    }
}

/// Has the sockets that share the port of this one choose by a program that refuses every connection.
pub(super) fn refuse_all(socket: &Socket) -> io::Result<()> {
    const SK_DROP: i32 = 0;
    const SO_ATTACH_REUSEPORT_EBPF: c_int = 52;
    let program = load(Attach::SharedPort, &[set(0, SK_DROP), EXIT])?;
    option::set(socket, libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program.as_raw_fd())
}

pub(super) const EXIT: bpf_insn = instruction(0x95, 0, 0, 0, 0);

/// `offset` and `value` mean what the operation says.
pub(super) const fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> bpf_insn {
    // The registers share a byte: the destination is its lower half.
    let registers = aya_obj::generated::__BindgenBitfieldUnit::new([source << 4 | destination]);
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off: offset, imm: value }
}

/// `register = value`
pub(super) const fn set(register: u8, value: i32) -> bpf_insn {
    instruction(0xb7, register, 0, 0, value)
}

/// `destination = source`
const fn copy(destination: u8, source: u8) -> bpf_insn {
    instruction(0xbf, destination, source, 0, 0)
}

pub(super) const fn call(helper: i32) -> bpf_insn {
    instruction(0x85, 0, 0, 0, helper)
}

/// Does this with TCP packets, the context in register 6, and leaves the others to the next program: neighbours are still asked for.
fn of_tcp(then: &[bpf_insn]) -> Vec<bpf_insn> {
    const PROTOCOL: i16 = 16;
    const NEXT: i32 = -1;
    const LOAD_BYTES: i32 = 26;
    const TCP: i32 = 6;
    let (ipv4, ipv6) = (i32::from(0x0800_u16.to_be()), i32::from(0x86dd_u16.to_be()));
    // What every jump leads to stands behind it.
    let past = then.iter().fold(0, |count, _| count + 1);
    let is_tcp = [
        copy(6, 1),
        // The protocol, in network byte order; then where the next one's number stands.
        instruction(0x61, 2, 6, PROTOCOL, 0),
        set(7, 14 + 9),
        instruction(0x15, 2, 0, 3, ipv4),
        set(7, 14 + 6),
        instruction(0x15, 2, 0, 1, ipv6),
        instruction(0x05, 0, 0, 9 + past, 0),
        copy(1, 6),
        copy(2, 7),
        copy(3, 10),
        instruction(0x07, 3, 0, 0, -4),
        set(4, 1),
        call(LOAD_BYTES),
        instruction(0x55, 0, 0, 2 + past, 0),
        instruction(0x71, 2, 10, -4, 0),
        instruction(0x55, 2, 0, past, TCP),
    ];
    [is_tcp.as_slice(), then, &[set(0, NEXT), EXIT]].concat()
}

/// Looks the socket up in the map, assigns and releases it; passes in any case.
fn steering_to(map: &OwnedFd) -> Vec<bpf_insn> {
    const PASS: i32 = 1;
    const LOOKUP_ELEMENT: i32 = 1;
    const RELEASE: i32 = 86;
    const ASSIGN: i32 = 124;
    const MAP_FD: u8 = 1;
    vec![
        copy(6, 1),
        // The key, 0, on the stack.
        instruction(0x62, 10, 0, -4, 0),
        copy(2, 10),
        instruction(0x07, 2, 0, 0, -4),
        instruction(0x18, 1, MAP_FD, 0, map.as_raw_fd()),
        instruction(0, 0, 0, 0, 0),
        call(LOOKUP_ELEMENT),
        // Nothing found: to the end.
        instruction(0x15, 0, 0, 7, 0),
        copy(7, 0),
        copy(1, 6),
        copy(2, 7),
        set(3, 0),
        call(ASSIGN),
        copy(1, 7),
        call(RELEASE),
        set(0, PASS),
        EXIT,
    ]
}

pub(super) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a whole `bpf_attr`; the pointers in it are to values that outlive the call (see the callers).
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_uint, &raw mut *attr, mem::size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(super) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn number(fd: impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}

pub(super) fn empty_attr() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zeroes are a value.
    unsafe { mem::zeroed() }
}

impl Attach {
    /// Its `enum bpf_prog_type` and `enum bpf_attach_type`.
    fn types(self) -> (u32, u32) {
        match self {
            Self::TcxIngress(_) => (3, 46),
            Self::TcxEgress(_) => (3, 47),
            Self::Xdp(_) => (6, 37),
            Self::Netfilter(..) => (32, 45),
            Self::SocketLookup => (30, 36),
            Self::SharedPort => (21, 39),
            Self::CgroupIngress => (8, 0),
            Self::CgroupEgress => (8, 1),
        }
    }
}

fn load(attach: Attach, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    load_as(attach.types(), instructions)
}

/// Loads a program of this `enum bpf_prog_type` and `enum bpf_attach_type`.
pub(super) fn load_as((program, attach): (u32, u32), instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_PROG_LOAD; all of it is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    (load.prog_type, load.expected_attach_type) = (program, attach);
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    load.license = license.as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().zip(b"stranger") {
        *to = c_char::from_ne_bytes([*from]);
    }
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?)
}

/// The start of `bpf_attr` as `BPF_LINK_CREATE` reads it: what is attached where, and for netfilter at which place.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    rest: u32,
}

impl LinkCreate {
    /// Everything but the place.
    fn of(program: &OwnedFd, attach: Attach) -> io::Result<Self> {
        let (_, attach_type) = attach.types();
        Ok(Self { program: number(program)?, target: 0, attach_type, flags: 0, family: 0, hook: 0, priority: 0, rest: 0 })
    }
}

/// Attaches in the calling thread's network namespace, which `namespace` is.
fn link(program: &OwnedFd, attach: Attach, namespace: &Namespace) -> io::Result<OwnedFd> {
    let nothing = LinkCreate::of(program, attach)?;
    create_link(match attach {
        Attach::TcxIngress(device) | Attach::TcxEgress(device) => {
            LinkCreate { target: nix::net::if_::if_nametoindex(device)?, ..nothing }
        }
        // In the generic mode, which every device has.
        Attach::Xdp(device) => LinkCreate { target: nix::net::if_::if_nametoindex(device)?, flags: 2, ..nothing },
        Attach::Netfilter(hook, priority) => LinkCreate { family: libc::AF_INET.unsigned_abs(), hook, priority, ..nothing },
        Attach::SocketLookup => LinkCreate { target: number(namespace.file())?, ..nothing },
        Attach::SharedPort | Attach::CgroupIngress | Attach::CgroupEgress => {
            return Err(io::Error::other("no place in a network namespace"));
        }
    })
}

fn create_link(create: LinkCreate) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: `bpf_attr` is larger than the structure, has its alignment, and is made of integers.
    unsafe { (&raw mut attr).cast::<LinkCreate>().write(create) };
    owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?)
}

/// A map that holds one socket.
fn map_of(socket: &TcpListener) -> io::Result<OwnedFd> {
    const SOCKMAP: u32 = 15;
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_MAP_CREATE; all of it is zero.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    (create.map_type, create.key_size, create.value_size, create.max_entries) = (SOCKMAP, 4, 8, 1);
    let map = owned(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?)?;
    let (key, value) = (0_u32, u64::from(number(socket)?));
    let mut attr = empty_attr();
    // SAFETY: this is the variant of BPF_MAP_UPDATE_ELEM; all of it is zero.
    let update = unsafe { &mut attr.__bindgen_anon_2 };
    update.map_fd = number(&map)?;
    update.key = (&raw const key) as u64;
    update.__bindgen_anon_1.value = (&raw const value) as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr)?;
    Ok(map)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
mod tests {
    use super::{Attach, Foreign};
    use crate::kernel::skip;
    use crate::lab::Namespace;
    use crate::probe::netfilter_programs;

    /// Another tracer arms and ends: for moments its links have no number yet, or its programs are gone already.
    #[test]
    fn programs_that_come_and_go_are_no_obstacle() {
        const TEST: &str = "programs_that_come_and_go_are_no_obstacle";
        const ACCEPT: i32 = 1;
        if !nix::unistd::geteuid().is_root() {
            return skip(TEST, "attaching programs needs root");
        }
        let namespace = Namespace::new("wsl").unwrap();
        // Whoever looks at a link holds it for that moment, and with it its place, which no other program may have.
        let attach = |place| Foreign::answering(&namespace, Attach::Netfilter(1, place), ACCEPT);
        if let Err(error) = attach(0) {
            return skip(TEST, &format!("{error}"));
        }
        std::thread::scope(|scope| {
            let coming = scope.spawn(|| (1..=300).for_each(|place| drop(attach(place).unwrap())));
            while !coming.is_finished() {
                netfilter_programs().unwrap();
            }
        });
    }
}
