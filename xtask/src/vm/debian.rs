//! Kernels of Debian's archive: `debian:trixie`, `debian:sid`. Fetched with apt from the mirror that this machine uses, into a
//! directory of ours, with lists of our own: nothing is installed, and the machine's apt is not changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::file;
use crate::{
    command::{self, clean, say},
    error::Error,
    places,
};

/// The package that always depends on the newest kernel for virtual machines.
const LATEST: &str = "linux-image-cloud-amd64";

/// Downloads the newest kernel of a suite and unpacks it, unless that was done; gives its image.
pub(crate) fn bring(suite: &str) -> Result<PathBuf, Error> {
    if suite.is_empty() || !suite.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Error::Archive(format!("`{}` is no suite of Debian's archive", suite.escape_debug())));
    }
    let directory = places::virtual_machines().join("debian").join(suite);
    let apt = Apt::new(&directory, suite)?;
    say(&format!("vm: asking Debian's archive for the kernel of {suite}"));
    command::run(apt.command("apt-get").args(["-q", "update"]))?;
    let image = apt.depends(LATEST)?.into_iter().find(|name| name.starts_with("linux-image-"));
    let Some(image) = image else { return Err(Error::Archive(format!("{LATEST} of {suite} depends on no kernel"))) };
    // Since 7.x the image and its modules are packages of their own.
    let parts = apt.depends(&image)?.into_iter();
    let mut packages: Vec<String> =
        parts.filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-")).collect();
    packages.push(image.clone());
    let root = directory.join(&image);
    if !root.is_dir() {
        apt.unpack(&packages, &root)?;
    }
    find_image(&root)
}

/// apt with its own sources and its own directories.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn new(directory: &Path, suite: &str) -> Result<Self, Error> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).map_err(file("make", &part))?;
        }
        let list = directory.join("sources.list");
        fs::write(&list, format!("deb {} {suite} main\n", mirror()?)).map_err(file("write", &list))?;
        Ok(Self { directory: directory.to_owned() })
    }

    fn command(&self, program: &str) -> Command {
        let mut apt = clean(program);
        let mut set = |name: &str, value: &Path| {
            apt.arg("-o").arg(format!("{name}={}", value.display()));
        };
        set("Dir::Etc::sourcelist", &self.directory.join("sources.list"));
        set("Dir::Etc::sourceparts", Path::new("/dev/null"));
        set("Dir::State::Lists", &self.directory.join("lists"));
        set("Dir::Cache", &self.directory.join("cache"));
        // Root's apt would otherwise download as a user who may not write here.
        set("APT::Sandbox::User", Path::new("root"));
        apt
    }

    /// The packages that the newest version of a package depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>, Error> {
        let mut show = self.command("apt-cache");
        show.args(["show", "--no-all-versions", package]);
        let text = command::answer(&mut show).ok_or_else(|| {
            Error::Archive(format!("the archive has no package {package}; `{}` says more", command::line(&show)))
        })?;
        Ok(depends(&text))
    }

    fn unpack(&self, packages: &[String], root: &Path) -> Result<(), Error> {
        let download = self.directory.join("download");
        if download.exists() {
            fs::remove_dir_all(&download).map_err(file("remove", &download))?;
        }
        let tree = download.join("tree");
        fs::create_dir_all(&tree).map_err(file("make", &tree))?;
        command::run(self.command("apt-get").current_dir(&download).args(["-q", "download"]).args(packages))?;
        let entries = fs::read_dir(&download).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.map_err(file("list", &download))? {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                command::run(clean("dpkg-deb").arg("--extract").arg(entry.path()).arg(&tree))?;
            }
        }
        // By one rename: what is there is complete.
        fs::rename(&tree, root).map_err(file("rename", &tree))?;
        fs::remove_dir_all(&download).map_err(file("remove", &download))
    }
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String, Error> {
    let mut names = vec![PathBuf::from("/etc/apt/sources.list")];
    let directory = Path::new("/etc/apt/sources.list.d");
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    names.extend(entries.map_err(file("list", directory))?.iter().map(fs::DirEntry::path));
    let texts = names.into_iter().filter_map(|name| fs::read_to_string(name).ok());
    let found = texts.into_iter().find_map(|text| mirror_in(&text));
    found.ok_or_else(|| {
        Error::Archive("/etc/apt names no mirror of Debian's archive (an address that ends in /debian)".to_owned())
    })
}

/// The first address that ends in `/debian` in a list of sources, of either format.
fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian")).map(str::to_owned)
}

/// The names in the field `Depends` of a package's description.
fn depends(description: &str) -> Vec<String> {
    let fields = description.lines().filter_map(|line| line.strip_prefix("Depends:"));
    let names = fields.flat_map(|field| field.split(',')).filter_map(|item| item.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// The kernel image of an unpacked package: in `boot`, or with the modules.
fn find_image(root: &Path) -> Result<PathBuf, Error> {
    for place in ["boot", "usr/lib/modules", "lib/modules"] {
        let place = root.join(place);
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries.collect::<Result<Vec<_>, _>>().map_err(file("list", &place))? {
            let path = entry.path();
            if path.is_file() && entry.file_name().to_string_lossy().starts_with("vmlinuz") {
                return Ok(path);
            }
            if path.join("vmlinuz").is_file() {
                return Ok(path.join("vmlinuz"));
            }
        }
    }
    Err(Error::Archive(format!("there is no kernel image in {}", root.display())))
}

#[cfg(test)]
mod tests {
    use super::{depends, mirror_in};

    #[test]
    fn the_mirror_is_read_from_both_formats() {
        let new =
            "Types: deb\n# http://old.example/debian\nURIs: http://m.example/debian-security\nURIs: http://m.example/debian\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://m.example/debian"));
        let old = "# deb http://a.example/debian x main\ndeb [arch=amd64] http://b.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://b.example/debian/"));
        assert_eq!(mirror_in("deb https://c.example/ubuntu noble main"), None);
    }

    #[test]
    fn dependencies_are_names_without_versions() {
        let text = "Package: a\nDepends: linux-image-6.12.1 (= 6.12.1-1), kmod | b\nDescription: x\n";
        assert_eq!(depends(text), ["linux-image-6.12.1", "kmod"]);
    }
}
