//! The eBPF object: aya makes the maps and loads the programs of tc and of the socket lookup; the others come out of the same object
//! with its maps' descriptors filled in.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use aya::maps::Map;
use aya::{Ebpf, EbpfLoader};
use aya_obj::Object;
use wsltrace_common::{CELLS, PORT_WORDS};

use super::sys::{self, Code, LoadError, ProgramType};
use crate::kernel::KernelFacts;

/// The object as built by `cargo xtask build`; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/wsltrace-ebpf.o"));

/// Why the kernel side could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The binary was built without it.
    #[error("this binary was built without its kernel side: build it with `cargo xtask build --release`")]
    Absent,
    /// The object is not what this binary expects.
    #[error("the kernel side does not fit this binary: {0} is missing; build both with `cargo xtask build --release`")]
    Mismatch(String),
    /// The maps or the object were refused.
    #[error("cannot create the maps of the kernel side")]
    Maps(#[source] aya::EbpfError),
    /// A map's descriptor could not be copied.
    #[error("cannot copy the descriptor of a map of the kernel side")]
    Descriptor(#[source] std::io::Error),
    /// The object cannot be read or linked.
    #[error("cannot read the kernel side")]
    Parse(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object's type information was refused.
    #[error("the kernel refuses the type information of the kernel side")]
    Btf(#[source] std::io::Error),
    /// A program was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Sizes that tests of the loss counters make small.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Entries in the table of journeys, and as many of the cells: where a key's cell is not among them it stands in the table.
    pub journeys: Option<u32>,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: Option<u32>,
}

/// aya's loader in the making. It reads all of the kernel's type information whether or not anybody wants it, so it does that on
/// another CPU while the caller finds out what to load.
pub struct Loader(JoinHandle<EbpfLoader<'static>>);

impl Loader {
    /// Begins.
    pub fn begin() -> Self {
        Self(std::thread::spawn(|| {
            let mut loader = EbpfLoader::new();
            // Nothing of ours needs relocations against it.
            loader.btf(None);
            loader
        }))
    }
}

/// The object with its maps made.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// A second copy, with the maps' descriptors filled in: for the programs that aya does not load. It is large, so it goes
    /// when what is needed was loaded, and is made again should more be.
    linked: Option<Object>,
    /// The maps by name: aya's own may be taken from it by whoever reads them.
    maps: HashMap<String, OwnedFd>,
    /// The object's type information, in the kernel: it tells the verifier which functions are global.
    btf: OwnedFd,
}

/// Makes the maps. `ports` is a bitmap.
pub(super) fn load(
    loader: Loader,
    facts: &KernelFacts,
    ports: &[u64; PORT_WORDS],
    sizes: Sizes,
    log_level: u8,
) -> Result<Loaded, ObjectError> {
    if OBJECT.is_empty() {
        return Err(ObjectError::Absent);
    }
    let mut loader: EbpfLoader<'_> = loader.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    loader.override_global("OFFSETS", &facts.offsets, true);
    loader.override_global("PORTS", &ports[..], true);
    loader.override_global("AYA_LOG_LEVEL", &log_level, false);
    if let Some(entries) = sizes.journeys {
        loader.map_max_entries("JOURNEYS", entries);
        loader.map_max_entries("CELLS", entries.min(CELLS));
    }
    if let Some(bytes) = sizes.ring_bytes {
        loader.map_max_entries("RECORDS", bytes);
    }
    let ebpf = loader.load(OBJECT).map_err(ObjectError::Maps)?;
    let maps =
        ebpf.maps().map(|(name, map)| Ok((name.to_owned(), descriptor(name, map)?))).collect::<Result<_, ObjectError>>()?;
    let mut linked = link(&maps)?;
    let btf = load_btf(&mut linked)?;
    Ok(Loaded { ebpf, linked: Some(linked), maps, btf })
}

/// Fills the descriptors of aya's maps into a second copy of the object.
fn link(maps: &HashMap<String, OwnedFd>) -> Result<Object, ObjectError> {
    let mut object = Object::parse(OBJECT).map_err(|error| ObjectError::Parse(error.into()))?;
    let definitions = object.maps.clone();
    let mut linked = Vec::new();
    for (name, definition) in &definitions {
        let map = maps.get(name).ok_or_else(|| ObjectError::Mismatch(format!("the map {name}")))?;
        linked.push((name.as_str(), map.as_raw_fd(), definition));
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(linked.into_iter(), &text).map_err(|error| ObjectError::Parse(error.into()))?;
    object.relocate_calls(&text).map_err(|error| ObjectError::Parse(error.into()))?;
    Ok(object)
}

fn load_btf(object: &mut Object) -> Result<OwnedFd, ObjectError> {
    let features = aya::features().btf().ok_or_else(|| ObjectError::Mismatch("the kernel's support of BTF".to_owned()))?;
    let btf = object.fixup_and_sanitize_btf(features).map_err(|error| ObjectError::Parse(error.into()))?;
    let btf = btf.ok_or_else(|| ObjectError::Mismatch("its type information".to_owned()))?;
    sys::load_btf(&btf.to_bytes()).map_err(ObjectError::Btf)
}

fn descriptor(name: &str, map: &Map) -> Result<OwnedFd, ObjectError> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => {
            data.fd().as_fd().try_clone_to_owned().map_err(ObjectError::Descriptor)
        }
        _ => Err(ObjectError::Mismatch(format!("the map {name} of a known type"))),
    }
}

impl Loaded {
    /// Loads one of the programs that aya does not.
    pub(super) fn load_program(&mut self, name: &str, kind: ProgramType) -> Result<OwnedFd, ObjectError> {
        let linked = linked(&mut self.linked, &self.maps)?;
        Ok(sys::load_program(kind, name, code(linked, self.btf.as_fd(), name)?)?)
    }

    /// Loads programs on all CPUs: each is verified on its own, and that is most of the time of a start. `meanwhile` is done at the same
    /// time with what aya loads itself. The results are in the order of `wanted`.
    pub(super) fn load_programs<T>(
        &mut self,
        wanted: &[(&str, ProgramType)],
        meanwhile: impl FnOnce(&mut Ebpf) -> T,
    ) -> Result<(Vec<Result<OwnedFd, LoadError>>, T), ObjectError> {
        let Self { ebpf, linked: object, maps, btf } = self;
        let object = linked(object, maps)?;
        let programs: Vec<_> = wanted
            .iter()
            .map(|(name, kind)| Ok((*name, *kind, code(object, btf.as_fd(), name)?)))
            .collect::<Result<_, ObjectError>>()?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(programs.len());
        let next = AtomicUsize::new(0);
        let work = || {
            let mut loaded = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, kind, code)) = programs.get(index) else { return loaded };
                loaded.push((index, sys::load_program(*kind, name, *code)));
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let other = meanwhile(ebpf);
            let mut loaded: Vec<_> = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            loaded.sort_unstable_by_key(|(index, _)| *index);
            Ok((loaded.into_iter().map(|(_, result)| result).collect(), other))
        })
    }

    /// A descriptor of a map, of one's own.
    pub(super) fn map(&self, name: &str) -> Result<OwnedFd, ObjectError> {
        let map = self.maps.get(name).ok_or_else(|| ObjectError::Mismatch(format!("the map {name}")))?;
        map.try_clone().map_err(ObjectError::Descriptor)
    }

    /// For the time being no more programs are needed.
    pub(super) fn forget_code(&mut self) {
        self.linked = None;
    }
}

fn linked<'a>(linked: &'a mut Option<Object>, maps: &HashMap<String, OwnedFd>) -> Result<&'a Object, ObjectError> {
    match linked {
        Some(object) => Ok(object),
        None => Ok(linked.insert(link(maps)?)),
    }
}

fn code<'a>(linked: &'a Object, btf: BorrowedFd<'a>, name: &str) -> Result<Code<'a>, ObjectError> {
    let missing = || ObjectError::Mismatch(format!("the program {name}"));
    let program = linked.programs.get(name).ok_or_else(missing)?;
    let function = linked.functions.get(&program.function_key()).ok_or_else(missing)?;
    Ok(Code { instructions: &function.instructions, functions: &function.func_info.func_info, btf })
}
