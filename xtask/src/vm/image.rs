//! What is in the guest: our program, the tools that the lab uses with all that they need, and busybox for the rest.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use super::{
    cpio::{Archive, Kind},
    file, modules,
};
use crate::{
    command::{self, clean},
    error::Error,
    places,
    setup::machine,
};

/// Programs of this machine that the scenarios run. A shell of its own, because busybox' takes its own programs before those that are there,
/// and its `ip` deletes no neighbours.
const TOOLS: &[&str] = &[
    "nft",
    "iptables",
    "iptables-save",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-legacy",
    "iptables-legacy-save",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip",
    "tc",
    "nsenter",
    "sh",
];

/// Those that single scenarios run, which are skipped where this machine does not have them.
const TOOLS_OF_FEW: &[&str] = &["bpftool", "bridge"];

/// What busybox is in the guest; programs that are there already are not among them.
const APPLETS: &[&str] = &["cat", "mkdir", "mknod", "mount", "poweroff", "sh", "sleep", "sync", "sysctl", "uname"];

/// Names of protocols, which `ip rule` and iptables look up.
const PROTOCOLS: &str = "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n";

/// Where iptables keeps its matches and targets, which it loads by name.
const PLUGINS: &str = "/usr/lib/x86_64-linux-gnu/xtables";

/// The files of the guest by their full names, as they will be written.
pub(crate) struct Contents {
    entries: BTreeMap<PathBuf, (Kind, Source)>,
}

/// Where an entry's content comes from.
enum Source {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This file of the machine.
    File(PathBuf),
}

impl Contents {
    /// Everything but the kernel's modules; the guest will play these scenarios.
    pub(crate) fn new(scenarios: &[String]) -> Result<Self, Error> {
        let mut contents = Self { entries: BTreeMap::new() };
        for name in ["bin", "sbin", "lib", "lib64"] {
            // Programs name these places; where the machine has them as links, files are found behind the links.
            let path = Path::new("/").join(name);
            if let Ok(target) = fs::read_link(&path) {
                contents.bytes(path, Kind::Link, target.to_string_lossy().into_owned().into_bytes());
            }
        }
        for directory in ["/dev", "/proc", "/sys", "/tmp", "/run", "/usr/bin", "/usr/sbin"] {
            contents.bytes(directory.into(), Kind::Directory, Vec::new());
        }
        contents.bytes("/init".into(), Kind::Program, include_bytes!("init.sh").to_vec());
        contents.bytes("/scenarios".into(), Kind::File, scenarios.join("\n").into_bytes());
        contents.bytes("/etc/protocols".into(), Kind::File, PROTOCOLS.as_bytes().to_vec());
        let busybox = machine::find("busybox").ok_or_else(|| missing("busybox"))?;
        contents.file("/usr/bin/busybox".into(), Kind::Program, busybox);
        for applet in APPLETS {
            contents.bytes(Path::new("/usr/bin").join(applet), Kind::Link, b"/usr/bin/busybox".to_vec());
        }
        contents.programs()?;
        Ok(contents)
    }

    /// A script to run instead of the self-test, and programs that it needs.
    pub(crate) fn take_along(&mut self, script: Option<&Path>, programs: &[String]) -> Result<(), Error> {
        if let Some(script) = script {
            self.bytes("/script".into(), Kind::Program, fs::read(script).map_err(file("read", script))?);
        }
        let taken = programs.iter().map(|program| self.tool(program)).collect::<Result<Vec<_>, _>>()?;
        if taken.is_empty() { Ok(()) } else { self.libraries(&taken) }
    }

    /// Our program, the tools, the plugins, and the libraries of all these.
    fn programs(&mut self) -> Result<(), Error> {
        let mut linked = vec![places::program(true)];
        self.file("/usr/bin/wsltrace".into(), Kind::Program, places::program(true));
        let of_few = TOOLS_OF_FEW.iter().filter(|tool| machine::find(tool).is_some());
        for tool in TOOLS.iter().chain(of_few) {
            linked.push(self.tool(tool)?);
        }
        for plugin in list(Path::new(PLUGINS))? {
            self.file(plugin.clone(), Kind::Program, plugin.clone());
            linked.push(plugin);
        }
        self.libraries(&linked)
    }

    /// Adds a tool under its own name, which may be a link: several names share one program, which looks by which it was called.
    pub(super) fn tool(&mut self, name: &str) -> Result<PathBuf, Error> {
        let found = machine::find(name).ok_or_else(|| missing(name))?;
        let program = found.canonicalize().map_err(file("resolve", &found))?;
        let own = Path::new("/usr/sbin").join(name);
        if program != own {
            self.bytes(own, Kind::Link, program.to_string_lossy().into_owned().into_bytes());
        }
        self.file(program.clone(), Kind::Program, program.clone());
        Ok(program)
    }

    /// Adds the shared libraries that these files are linked with.
    pub(super) fn libraries(&mut self, linked: &[PathBuf]) -> Result<(), Error> {
        let mut ldd = clean("ldd");
        ldd.args(linked);
        let output = ldd.output().map_err(|source| Error::Start { command: command::line(&ldd), source })?;
        if !output.status.success() {
            return Err(Error::Failed { command: command::line(&ldd), status: output.status });
        }
        for library in named_by_ldd(&String::from_utf8_lossy(&output.stdout)) {
            let real = library.canonicalize().map_err(file("resolve", &library))?;
            // Under the name that is asked for, with the directory's links resolved: the guest has those too.
            let (Some(directory), Some(name)) = (library.parent(), library.file_name()) else { continue };
            let directory = directory.canonicalize().map_err(file("resolve", directory))?;
            self.file(directory.join(name), Kind::Program, real);
        }
        Ok(())
    }

    /// Adds what the kernel was built with, where it lies beside the image: not every kernel tells it itself.
    pub(crate) fn configuration(&mut self, version: &str, image: &Path) {
        let name = format!("config-{version}");
        let beside = image.with_file_name(&name);
        if beside.is_file() {
            self.file(Path::new("/boot").join(name), Kind::File, beside);
        }
    }

    /// Adds the kernel's network modules from this directory, and the program that loads them on demand.
    pub(crate) fn modules(&mut self, version: &str, directory: &Path) -> Result<(), Error> {
        let modprobe = self.tool("modprobe")?;
        self.libraries(&[modprobe])?;
        for (name, source) in modules::choose(version, directory)? {
            self.file(Path::new("/usr/lib/modules").join(version).join(name), Kind::File, source);
        }
        Ok(())
    }

    pub(super) fn bytes(&mut self, path: PathBuf, kind: Kind, bytes: Vec<u8>) {
        self.entries.insert(path, (kind, Source::Bytes(bytes)));
    }

    pub(super) fn file(&mut self, path: PathBuf, kind: Kind, source: PathBuf) {
        self.entries.insert(path, (kind, Source::File(source)));
    }

    /// Writes the archive, with the directories that its files lie in.
    pub(crate) fn write(mut self, archive: &Path) -> Result<(), Error> {
        let parents: Vec<PathBuf> = self.entries.keys().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
        for parent in parents.into_iter().filter(|parent| parent.parent().is_some()) {
            self.entries.entry(parent).or_insert((Kind::Directory, Source::Bytes(Vec::new())));
        }
        let failed = |source| Error::File { action: "write", path: archive.to_owned(), source };
        let mut out = Archive::new(BufWriter::new(File::create(archive).map_err(failed)?));
        // Sorted by path, so a directory stands before what lies in it.
        for (path, (kind, source)) in &self.entries {
            let content = match source {
                Source::Bytes(bytes) => bytes.clone(),
                Source::File(source) => fs::read(source).map_err(file("read", source))?,
            };
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            out.add(&name, *kind, &content).map_err(failed)?;
        }
        out.finish().map_err(failed)
    }
}

/// The libraries in what `ldd` prints: `name => /path (address)`, or for the loader `/path (address)`.
fn named_by_ldd(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let line = line.trim();
        let line = line.split_once(" => ").map_or(line, |(_, path)| path);
        line.strip_suffix(')').and_then(|line| line.rsplit_once(" (")).map(|(path, _)| PathBuf::from(path))
    };
    text.lines().filter_map(path).filter(|path| path.is_absolute()).collect()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    entries.map_err(file("list", directory))
}

fn missing(tool: &str) -> Error {
    let source = io::Error::new(io::ErrorKind::NotFound, "not in PATH");
    Error::Start { command: tool.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::named_by_ldd;

    #[test]
    fn libraries_and_the_loader_are_found_and_nothing_else() {
        let text = "/usr/sbin/nft:\n\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n\tstatically linked\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(named_by_ldd(text), expected);
    }
}
