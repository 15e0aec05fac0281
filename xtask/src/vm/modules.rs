//! Which of a kernel's modules go into the guest: everything of its network, the devices that the lab makes, and whatever
//! these depend on. The guest's kernel asks for them by name, so nothing is loaded that a scenario does not need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::file;
use crate::{
    command::{self, clean},
    error::Error,
    places,
};

/// Directories of modules that are taken as a whole.
const WHOLE: &[&str] = &["kernel/net/", "kernel/crypto/"];
/// Devices that the lab makes, or a script may want, by the beginning of the module's path.
const DEVICES: &[&str] = &[
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/net/dummy.ko",
    "kernel/drivers/net/tun.ko",
    "kernel/drivers/net/vrf.ko",
    "kernel/drivers/net/macvlan.ko",
    "kernel/drivers/net/ipvlan/",
    "kernel/drivers/net/macvtap.ko",
    "kernel/drivers/net/tap.ko",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/team/",
    "kernel/drivers/net/ifb.ko",
    "kernel/drivers/net/macsec.ko",
    "kernel/drivers/net/vxlan/",
    "kernel/drivers/net/geneve.ko",
    "kernel/drivers/net/wireguard/",
];
/// Tables that belong to the kernel's build, and that may be missing.
const OF_THE_BUILD: &[&str] = &["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// The modules beside a kernel image: in the same tree as its `boot`, or in the directory of the image itself.
pub(crate) fn beside(image: &Path, version: &str) -> Option<PathBuf> {
    let directory = image.canonicalize().ok()?.parent()?.to_owned();
    let places = ["lib/modules", "usr/lib/modules", "../lib/modules", "../usr/lib/modules"];
    let found = places.iter().find_map(|place| directory.join(place).join(version).canonicalize().ok());
    found.or_else(|| directory.join("kernel").is_dir().then_some(directory))
}

/// The files to put into the guest's directory of modules: their names there, and where they are.
pub(crate) fn choose(version: &str, directory: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let directory = directory.canonicalize().map_err(file("find", directory))?;
    let made = index(version, &directory)?;
    let table = made.join("modules.dep");
    let text = fs::read_to_string(&table).map_err(file("read", &table))?;
    let mut files: Vec<(String, PathBuf)> = wanted(&text).into_iter().map(|name| (name.clone(), directory.join(name))).collect();
    for entry in fs::read_dir(&made).map_err(file("list", &made))? {
        let entry = entry.map_err(file("list", &made))?;
        if entry.path().is_file() {
            files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    Ok(files)
}

/// Runs `depmod`, which a package leaves to the machine that it is installed on; gives the directory with its tables. It writes
/// beside the modules, so it gets a directory of ours in which they are linked.
fn index(version: &str, directory: &Path) -> Result<PathBuf, Error> {
    let stage = places::virtual_machines().join(version).join("depmod");
    match fs::remove_dir_all(&stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file("remove", &stage)(error)),
        _ => {}
    }
    let made = stage.join("usr/lib/modules").join(version);
    fs::create_dir_all(&made).map_err(file("make", &made))?;
    // Older ones look in lib/modules, newer ones in usr/lib/modules.
    symlink("usr/lib", stage.join("lib")).map_err(file("make", &stage.join("lib")))?;
    for name in ["kernel"].iter().chain(OF_THE_BUILD) {
        let (from, to) = (directory.join(name), made.join(name));
        if from.exists() {
            symlink(&from, &to).map_err(file("make", &to))?;
        }
    }
    command::run(clean("depmod").arg("-b").arg(&stage).arg(version))?;
    Ok(made)
}

/// The modules to take by `modules.dep`: those that we want, and what they depend on.
fn wanted(dependencies: &str) -> BTreeSet<String> {
    let table: BTreeMap<&str, &str> = dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let begins = |name: &str| WHOLE.iter().chain(DEVICES).any(|wanted| name.starts_with(wanted));
    // Each line of the table lists all that a module needs, not only its neighbours.
    let chosen = table.iter().filter(|(name, _)| begins(name));
    chosen.flat_map(|(name, needs)| std::iter::once(*name).chain(needs.split_whitespace())).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn the_network_and_what_it_needs_are_taken() {
        let table = "kernel/net/a.ko.xz: kernel/lib/c.ko.xz kernel/lib/d.ko.xz\nkernel/drivers/net/veth.ko:\n\
                     kernel/drivers/net/wifi.ko: kernel/net/a.ko.xz\nkernel/lib/c.ko.xz: kernel/lib/d.ko.xz\n";
        let expected = ["kernel/drivers/net/veth.ko", "kernel/lib/c.ko.xz", "kernel/lib/d.ko.xz", "kernel/net/a.ko.xz"];
        assert!(wanted(table).iter().eq(expected.iter()), "{:?}", wanted(table));
    }
}
