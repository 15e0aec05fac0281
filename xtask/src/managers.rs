//! Packages of the firewalls' managers (ufw, firewalld, Docker) for the test that runs the commands printed for their rules.
//! They are downloaded, never installed here: the test puts them into a copy of this machine's root that ends with it.

use std::{fs, path::PathBuf};

use crate::{
    command::{self, clean, say},
    error::Error,
    places,
    setup::machine::has,
};

/// The managers, as Debian and Ubuntu name their packages, and the program that is there where one is installed.
const MANAGERS: [(&str, &str); 3] = [("firewalld", "firewall-cmd"), ("ufw", "ufw"), ("docker.io", "dockerd")];

/// Downloads what this machine lacks of the managers, unless that was done; gives the directory, or says why there is none.
pub(crate) fn bring() -> Result<PathBuf, Error> {
    let directory = places::user_target().join("managers");
    if directory.is_dir() {
        return Ok(directory);
    }
    let lacking: Vec<&str> = MANAGERS.iter().filter(|(_, program)| !has(program)).map(|(package, _)| *package).collect();
    let packages = if let Some(packages) = wanted(&lacking) {
        packages
    } else {
        command::run(clean("apt-get").args(["-q", "update"]))?;
        wanted(&lacking).ok_or_else(|| Error::Archive(format!("this machine's archive lacks one of {}", lacking.join(" "))))?
    };
    let download = directory.with_extension("part");
    let fail = |action: &'static str| {
        let path = download.clone();
        move |source| Error::File { action, path, source }
    };
    if download.exists() {
        fs::remove_dir_all(&download).map_err(fail("remove"))?;
    }
    fs::create_dir_all(&download).map_err(fail("make"))?;
    if !packages.is_empty() {
        say(&format!("test: downloading {} (they are not installed on this machine)", packages.join(" ")));
        let mut apt = clean("apt-get");
        apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&packages).current_dir(&download);
        command::run(&mut apt)?;
    }
    // By one rename: what is there is complete.
    fs::rename(&download, &directory).map_err(fail("rename"))?;
    Ok(directory)
}

/// What an installation would bring; `None` when apt does not know.
fn wanted(lacking: &[&str]) -> Option<Vec<String>> {
    if lacking.is_empty() {
        return Some(Vec::new());
    }
    let mut apt = clean("apt-get");
    apt.args(["install", "--simulate", "--no-install-recommends"]).args(lacking);
    command::answer(&mut apt).map(|text| installed(&text))
}

/// The packages in the lines `Inst NAME (VERSION ...)`.
fn installed(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_apt_would_install_is_read() {
        let text =
            "Reading package lists...\nInst libnm0 (1.42.4-1 Debian:12 [amd64])\nInst ufw (0.36 Debian [all])\nConf ufw (0.36)\n";
        assert_eq!(super::installed(text), ["libnm0", "ufw"]);
    }
}
