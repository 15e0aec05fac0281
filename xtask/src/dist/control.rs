//! The texts that Debian wants in a package: control, copyright and changelog.

use std::process::Command;

use crate::{command, error::Error, places};

/// The version of the package: the program's, and the first packaging of it.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");

/// Who made the package, and of when its sources are.
pub(super) struct Stamp {
    /// `NAME <ADDRESS>`.
    pub(super) maintainer: String,
    /// As RFC 5322 writes it.
    pub(super) date: String,
}

impl Stamp {
    /// The maintainer by `DEBFULLNAME` and `DEBEMAIL`, as Debian's tools take it, else by the last commit; the date by that.
    pub(super) fn of_checkout() -> Result<Self, Error> {
        let last = |format: &str| {
            let mut git = Command::new("git");
            git.current_dir(places::root()).args(["log", "-1", "--date=rfc2822", &format!("--format={format}")]);
            command::answer(&mut git).map(|said| said.trim().to_owned()).filter(|said| !said.is_empty())
        };
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let name = variable("DEBFULLNAME").or_else(|| last("%an"));
        let address = variable("DEBEMAIL").or_else(|| last("%ae"));
        match (name, address, last("%cd")) {
            (Some(name), Some(address), Some(date)) => Ok(Self { maintainer: format!("{name} <{address}>"), date }),
            _ => Err(Error::NoStamp),
        }
    }
}

/// What `dpkg` reads; `size` is that of the files, bytes.
pub(super) fn control(architecture: &str, stamp: &Stamp, depends: &str, size: u64) -> String {
    format!(
        "Package: wsltrace
Version: {VERSION}
Section: net
Priority: optional
Architecture: {architecture}
Maintainer: {}
Depends: {depends}
Suggests: nftables, iptables
Installed-Size: {}
Description: says where a TCP connection attempt into WSL2 dies
 wsltrace watches connection attempts to a port come into Linux and says in one
 sentence where each died: in a firewall rule, in routing, for want of a
 listener, in a full accept queue, or on the way back; and what to type.
 .
 It uses eBPF, needs root and Linux 6.6 or later, and changes nothing.
",
        stamp.maintainer,
        size.div_ceil(1024)
    )
}

/// The copyright file in Debian's format; `mit` is the text of the licence.
pub(super) fn copyright(mit: &str) -> String {
    let holder = mit.lines().find_map(|line| line.strip_prefix("Copyright (c) ")).unwrap_or("the wsltrace contributors");
    let terms = mit.lines().skip_while(|line| !line.starts_with("Permission")).map(indented);
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: wsltrace

Files: *
Copyright: {holder}
License: MIT or Apache-2.0

License: MIT
{}
License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
",
        terms.collect::<String>()
    )
}

/// A line of a field that goes on; an empty one is a dot.
fn indented(line: &str) -> String {
    if line.trim().is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }
}

/// The changelog of the packaging.
pub(super) fn changelog(stamp: &Stamp) -> String {
    format!(
        "wsltrace ({VERSION}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {}  {}\n",
        stamp.maintainer, stamp.date
    )
}

#[cfg(test)]
mod tests {
    use super::{Stamp, changelog, control, copyright};

    fn stamp() -> Stamp {
        Stamp { maintainer: "A B <a@b.example>".to_owned(), date: "Mon, 23 Nov 2026 08:00:00 +0000".to_owned() }
    }

    #[test]
    fn control_has_one_field_a_line_and_rounds_the_size_up() {
        let text = control("amd64", &stamp(), "libc6 (>= 2.34)", 1025);
        for line in ["Architecture: amd64", "Maintainer: A B <a@b.example>", "Depends: libc6 (>= 2.34)", "Installed-Size: 2"] {
            assert!(text.lines().any(|there| there == line), "{line}");
        }
        assert!(text.lines().all(|line| line.starts_with(' ') || line.contains(": ")), "{text}");
    }

    #[test]
    fn the_licence_is_whole_and_indented() {
        let text = copyright("MIT License\n\nCopyright (c) 2026 X\n\nPermission is granted\n\nto all.\n");
        assert!(text.contains("Copyright: 2026 X\nLicense: MIT or Apache-2.0\n"));
        assert!(text.contains("License: MIT\n Permission is granted\n .\n to all.\n\nLicense: Apache-2.0\n"), "{text}");
    }

    #[test]
    fn the_changelog_ends_with_the_maintainer_and_two_spaces_and_the_date() {
        assert!(changelog(&stamp()).ends_with("\n -- A B <a@b.example>  Mon, 23 Nov 2026 08:00:00 +0000\n"));
    }
}
