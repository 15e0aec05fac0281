//! Putting the probes in: load, attach everything, then switch on. They go with the process: nothing is pinned.

mod attached;
mod counters;
mod descriptors;
mod error;
mod missing;
mod object;
mod positions;
mod standing;
mod sys;
mod table;
mod tracing;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, RingBuf};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier, SkLookup};
use wsltrace_common::{Key, NAMESPACE_FOLLOWED, NAMESPACE_TRACED, PORT_WORDS, Record, octets};

use crate::kernel::KernelFacts;
use crate::kernel::links::{ARPHRD_LOOPBACK, Link};
use crate::kernel::netns::Netns;
use attached::Attached;
pub use counters::CounterReader;
pub use descriptors::most_descriptors;
pub use error::ProbeError;
use error::absent;
pub use missing::Missing;
use missing::missing_fields;
use object::Loaded;
pub use object::{Loader, ObjectError, Sizes};
use positions::Positions;
use standing::Standing;
use tracing::Tracing;

/// Whether a program of this name is one of the tracer's, of this run or of another.
pub(crate) fn is_own_program(name: &str) -> bool {
    /// The kernel keeps so many bytes of a name.
    const KEPT: usize = 15;
    let tc = ["tc_ingress", "tc_egress", "tc_ingress_l3", "tc_egress_l3", "socket_lookup"];
    let names = POSITIONS.iter().map(|position| position.program).chain(tc);
    names.map(|own| own.get(..KEPT).unwrap_or(own)).any(|own| own == name)
}

pub(crate) use sys::{cgroup_programs, choosing_programs, lookup_programs, netfilter_programs, tc_programs};
pub use table::{ACCEPT, Hook, POSITIONS, Position, TRACEPOINTS};

/// How many netfilter positions are linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Detail {
    /// The standard priorities at which something is hooked in, as it comes: names the chain that dropped a packet.
    #[default]
    Auto,
    /// Every standard priority, also where nothing is hooked in.
    Full,
    /// Seven a family: names the hook.
    Light,
}

/// Whether journeys begin in a namespace or are only followed into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Journeys begin here.
    Traced,
    /// A container: packets are followed into it.
    Followed,
}

/// What came of looking at a part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Journeys that were there.
    pub found: usize,
    /// Whether there is more to look at; the next look after the last part begins anew.
    pub more: bool,
}

const NAMESPACES: &str = "NETWORK_NAMESPACES";

fn namespaces_failed(source: aya::maps::MapError) -> ProbeError {
    ProbeError::Map { map: NAMESPACES, source }
}

/// The probes in the kernel.
pub struct Probes {
    loaded: Loaded,
    positions: Positions,
    held: Attached,
    tracing: Tracing,
    collect: OwnedFd,
    standing: Standing,
    missing: Vec<Missing>,
    attached: BTreeMap<&'static str, u32>,
}

impl Probes {
    /// Loads every program. Nothing is attached to a namespace yet.
    pub fn load(
        begun: Loader,
        facts: &KernelFacts,
        ports: &[u64; PORT_WORDS],
        detail: Detail,
        sizes: Sizes,
        log_level: u8,
    ) -> Result<Self, ProbeError> {
        let mut loaded = object::load(begun, facts, ports, sizes, log_level)?;
        let mut positions = Positions::new(&mut loaded, detail)?;
        let collect = loaded.load_program("collect", sys::ProgramType::Syscall)?;
        let mut missing = missing_fields(facts);
        let wanted = tracing::wanted(facts, &mut missing)?;
        let certain = positions::certain(detail);
        let all: Vec<_> = wanted.iter().map(|it| (it.name, it.kind)).chain(positions::programs_of(&certain)).collect();
        let (mut programs, classifiers) = loaded.load_programs(&all, load_classifiers)?;
        classifiers?;
        positions.adopt(&certain, programs.split_off(wanted.len()))?;
        let mut probes = Self {
            loaded,
            positions,
            held: Attached::default(),
            tracing: Tracing::default(),
            collect,
            standing: Standing::new(),
            missing,
            attached: BTreeMap::new(),
        };
        for (wanted, program) in wanted.into_iter().zip(programs) {
            if probes.tracing.attach(wanted, program, &mut probes.missing)? {
                probes.count_attached(wanted.name, 1);
                if wanted.name == ACCEPT {
                    probes.set_switch(2, true)?;
                }
            }
        }
        Ok(probes)
    }

    fn count_attached(&mut self, probe: &'static str, places: usize) {
        *self.attached.entry(probe).or_default() += u32::try_from(places).unwrap_or(u32::MAX);
    }

    /// Attaches the netfilter positions and the socket lookup in a namespace, and makes it known to the probes.
    pub fn attach_namespace(&mut self, netns: &Netns, role: Role) -> Result<(), ProbeError> {
        let role = match role {
            Role::Traced => NAMESPACE_TRACED,
            Role::Followed => NAMESPACE_FOLLOWED,
        };
        self.namespaces()?.insert(netns.inum(), role, 0).map_err(namespaces_failed)?;
        let taken = self.positions.watch(&mut self.loaded, netns)?;
        if !taken.ahead.is_empty() {
            let hooks = taken.ahead.into_iter().collect::<Vec<_>>().join(", ");
            log::warn!("another BPF program runs before the probes in {hooks}: what it drops is not seen to enter the hook");
        }
        self.count_attached("netfilter", taken.added);
        let lookup: &mut SkLookup = program(&mut self.loaded.ebpf, "socket_lookup")?;
        let attached = lookup.attach(netns).and_then(|id| lookup.take_link(id));
        let link = attached.map_err(|source| ProbeError::Attach {
            probe: "socket_lookup".to_owned(),
            netns: netns.label().to_owned(),
            source: source.into(),
        })?;
        self.held.keep_lookup(netns.inum(), link);
        self.count_attached("socket_lookup", 1);
        Ok(())
    }

    /// Takes everything out of a namespace. Nothing here keeps it alive after that.
    pub fn detach_namespace(&mut self, inum: u32) -> Result<(), ProbeError> {
        self.positions.forget(inum);
        self.held.forget(inum);
        match self.namespaces()?.remove(&inum) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(namespaces_failed(source)),
        }
    }

    fn namespaces(&mut self) -> Result<HashMap<&mut MapData, u32, u32>, ProbeError> {
        let map = self.loaded.ebpf.map_mut(NAMESPACES).ok_or_else(|| absent("the map NETWORK_NAMESPACES"))?;
        HashMap::try_from(map).map_err(namespaces_failed)
    }

    /// Takes the netfilter positions that have become needed, because something was hooked in there. Whether anything was hooked in
    /// or out since the last look, as far as that is asked for ([`Detail::Auto`]).
    pub fn refresh_positions(&mut self) -> Result<bool, ProbeError> {
        let taken = self.positions.refresh(&mut self.loaded)?;
        self.count_attached("netfilter", taken.added);
        Ok(taken.changed)
    }

    /// Attaches the TC programs to those interfaces of a namespace that have none of ours yet. They ask to be first: a program before
    /// ours could hide the packet. An interface that vanished meanwhile is left out. One that cannot be attached to does not keep the others
    /// from it; the error is the first one's.
    pub fn attach_interfaces(&mut self, netns: &Netns, links: &[Link]) -> Result<(), ProbeError> {
        let mut all = Ok(());
        for link in links {
            if !self.held.has_device(netns.inum(), link.index) {
                all = all.and(self.attach_interface(netns, link));
            }
        }
        all
    }

    fn attach_interface(&mut self, netns: &Netns, link: &Link) -> Result<(), ProbeError> {
        if link.xdp {
            let name = &link.name;
            let is_followed = matches!(self.namespaces()?.get(&netns.inum(), 0), Ok(NAMESPACE_FOLLOWED));
            let of = if is_followed { format!(" of the network namespace {}", netns.label()) } else { String::new() };
            log::warn!("an XDP program on {name}{of} runs before the probes: what it drops or redirects is never seen");
        }
        let ethernet = matches!(link.arphrd, 1 | ARPHRD_LOOPBACK);
        let programs = if ethernet { ["tc_ingress", "tc_egress"] } else { ["tc_ingress_l3", "tc_egress_l3"] };
        for (name, direction) in programs.into_iter().zip([TcAttachType::Ingress, TcAttachType::Egress]) {
            let program = load_classifier(&mut self.loaded.ebpf, name)?;
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let attached = netns.run(|| program.attach_with_options(&link.name, direction, options))?;
            match attached.and_then(|id| program.take_link(id)) {
                Ok(attached) => self.held.keep_device(netns.inum(), link.index, attached),
                Err(_) if interface_is_gone(netns, link)? => break,
                Err(source) => {
                    let probe = format!("{name} to the interface {}", link.name.escape_debug());
                    return Err(ProbeError::Attach { probe, netns: netns.label().to_owned(), source: source.into() });
                }
            }
            self.count_attached(if direction == TcAttachType::Ingress { "tc_ingress" } else { "tc_egress" }, 1);
        }
        Ok(())
    }

    /// An interface is gone, and its number may be another's next.
    pub fn forget_interface(&mut self, netns: &Netns, index: u32) {
        self.held.forget_device(netns.inum(), index);
    }

    /// Of the interfaces of a namespace only these are still there.
    pub fn keep_interfaces(&mut self, netns: &Netns, links: &[Link]) {
        self.held.keep_only(netns.inum(), &links.iter().map(|link| link.index).collect::<BTreeSet<_>>());
    }

    /// Whether journeys begin: to be switched on when everything is attached, and off at the end.
    pub fn switch(&mut self, on: bool) -> Result<(), ProbeError> {
        // All that is needed now was loaded.
        self.loaded.forget_code();
        self.set_switch(0, on)
    }

    /// Whether SYNs to ports that are not traced are counted.
    pub fn count_near_misses(&mut self, wanted: bool) -> Result<(), ProbeError> {
        self.set_switch(1, wanted)
    }

    fn set_switch(&mut self, index: u32, on: bool) -> Result<(), ProbeError> {
        let fail = |source| ProbeError::Map { map: "SWITCHES", source };
        let map = self.loaded.ebpf.map_mut("SWITCHES").ok_or_else(|| absent("the map SWITCHES"))?;
        let mut switches: Array<_, u32> = Array::try_from(map).map_err(fail)?;
        switches.set(index, u32::from(on), 0).map_err(fail)
    }

    /// Takes the ring buffer of ended journeys; it can be taken once.
    pub fn take_records(&mut self) -> Result<RingBuf<MapData>, ProbeError> {
        let map = self.loaded.ebpf.take_map("RECORDS").ok_or_else(|| absent("the map RECORDS"))?;
        RingBuf::try_from(map).map_err(|source| ProbeError::Map { map: "RECORDS", source })
    }

    /// Looks at some more of the journeys that have not ended, and ends the journeys that `is_over` says so of (given the record as it stands there). Their
    /// records come through the ring buffer like all others, so it should be read before the next call.
    pub fn sweep(&mut self, mut is_over: impl FnMut(&Record) -> bool) -> Result<Swept, ProbeError> {
        let mut over = Vec::new();
        let (found, more) = self.standing.read(&self.loaded.ebpf, |key, record| {
            if is_over(record) {
                over.push((record.first_ns, *key, record.last_ns));
            }
        })?;
        // A client's attempts end together, and they stand in no order.
        over.sort_unstable_by_key(|(first_ns, ..)| *first_ns);
        for (_, key, last_ns) in over {
            let mut request = [0; size_of::<Key>() + size_of::<u64>()];
            let (for_key, for_time) = request.split_at_mut(size_of::<Key>());
            for_key.copy_from_slice(&key_bytes(&key));
            for_time.copy_from_slice(&last_ns.to_ne_bytes());
            // Whether it did so does not matter here: a journey that has moved on, or finds no room in the ring buffer, waits for the next time.
            sys::run(&self.collect, &mut request).map_err(ProbeError::Collect)?;
        }
        Ok(Swept { found, more })
    }

    /// The object's own name for the kernel-side log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.loaded.ebpf
    }

    /// Probes that are not on.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The probes that are on, with the number of places that each is attached to.
    pub fn on(&self) -> Vec<(String, u32)> {
        self.attached.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }
}

fn key_bytes(key: &Key) -> [u8; size_of::<Key>()] {
    let mut bytes = [0; size_of::<Key>()];
    bytes[..16].copy_from_slice(&octets(key.address));
    bytes[16..20].copy_from_slice(&key.sequence.to_ne_bytes());
    bytes[20..22].copy_from_slice(&key.port.to_ne_bytes());
    bytes[22..].copy_from_slice(&key.slot.to_ne_bytes());
    bytes
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, ProbeError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| absent(name))?;
    program.try_into().map_err(|source| ProbeError::Program { probe: name, source })
}

/// What aya loads itself at the start.
fn load_classifiers(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    for name in ["tc_ingress", "tc_egress"] {
        load_classifier(ebpf, name)?;
    }
    let program: &mut SkLookup = program(ebpf, "socket_lookup")?;
    program.load().map_err(|source| ProbeError::Program { probe: "socket_lookup", source })
}

/// A TC program, loaded when it is first asked for: few machines have devices without a link-layer header.
fn load_classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, ProbeError> {
    let program: &mut SchedClassifier = program(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|source| ProbeError::Program { probe: name, source })?;
    }
    Ok(program)
}

fn interface_is_gone(netns: &Netns, link: &Link) -> Result<bool, ProbeError> {
    let name = link.name.clone();
    Ok(netns.run(move || nix::net::if_::if_nametoindex(name.as_str()).is_err())?)
}
