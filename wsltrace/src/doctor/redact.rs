//! Hides addresses and names in what goes into a bug report. Addresses become those of the documentation's networks, so that what
//! is hidden still reads as an address, and the same one everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use self::rules::Private;
use super::{Examination, Facts};

mod rules;

/// Programs whose names tell nothing of their user, and much of the fault.
const WELL_KNOWN: [&str; 15] = [
    "docker-proxy",
    "dockerd",
    "init",
    "node",
    "python3",
    "python",
    "java",
    "nginx",
    "wslrelay",
    "svchost",
    "systemd",
    "sshd",
    "System",
    "wsldevicehost",
    "com.docker.backend",
];
/// What stands before a user's name in a path, and what ends it there.
const HOMES: [(&str, &[char]); 4] = [("/home/", &['/']), (r"\\Users\\", &['\\']), (r"\Users\", &['\\']), ("/Users/", &['/'])];
/// The first three parts of the network for IPv4 examples.
const EXAMPLE_V4: [u8; 3] = [192, 0, 2];
/// The network for IPv6 examples.
const EXAMPLE_V6: u32 = 0x2001_0db8;
/// Shorter names are words of other things.
const SHORTEST: usize = 3;

/// What is hidden, by what stands for it.
#[derive(Debug, Default)]
pub struct Redactor {
    addresses: BTreeMap<IpAddr, IpAddr>,
    words: Vec<(String, String)>,
    rules: Private,
    hardware: Vec<String>,
}

impl Redactor {
    /// Hides the names of this machine, its users and their programs.
    pub fn of(facts: &Facts) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let users = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
        let listeners = facts.linux.listeners.iter().chain(&facts.linux.other_listeners).chain(&facts.linux.elsewhere);
        let of_windows = facts.windows.facts().and_then(|windows| windows.listeners.known()).into_iter().flatten();
        let of_windows = of_windows.filter_map(|listener| listener.process.clone());
        let programs = listeners.filter_map(|listener| listener.command.clone()).chain(of_windows);
        let programs = programs.filter(|name| !WELL_KNOWN.contains(&name.as_str()));
        let mut redactor = Self::default();
        redactor.hide("host", [host.trim().to_owned()]);
        redactor.hide("user", users.filter(|user| user != "root"));
        redactor.hide("program", programs);
        redactor
    }

    fn hide(&mut self, kind: &str, names: impl IntoIterator<Item = String>) {
        for name in names {
            if name.len() >= SHORTEST && name != "localhost" && !self.words.iter().any(|(known, _)| *known == name) {
                self.number(kind, name);
            }
        }
    }

    /// Gives a name its number; gives what stands for it.
    fn number(&mut self, kind: &str, name: String) -> String {
        let count = 1 + self.words.iter().filter(|(_, instead)| instead.starts_with(&format!("{kind}-"))).count();
        let instead = format!("{kind}-{count}");
        self.words.push((name, instead.clone()));
        instead
    }

    /// The same examination with everything hidden.
    pub fn examination(&mut self, examined: &Examination) -> serde_json::Result<Examination> {
        let hidden = self.value(serde_json::to_value(examined)?);
        serde_json::from_value(hidden)
    }

    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.value(value)).collect()),
            Value::Object(fields) => {
                let mut hidden = |name: &str, value| if is_kept(name) { value } else { self.value(value) };
                Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), hidden(&name, value))).collect())
            }
            other => other,
        }
    }

    fn text(&mut self, text: &str) -> String {
        let text = HOMES.iter().fold(self.rules.hidden(text), |text, (home, end)| self.without_users(&text, home, end));
        let long = self.words.iter().filter(|(word, _)| word.len() >= SHORTEST);
        let named = long.fold(text, |text, (word, instead)| replace_word(&text, word, instead));
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':';
        let mut hidden = String::with_capacity(named.len());
        let mut rest = named.as_str();
        while let Some(start) = rest.find(is_part) {
            let (before, from) = rest.split_at(start);
            let (token, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
            hidden.push_str(before);
            hidden.push_str(&self.token(token));
            rest = after;
        }
        hidden.push_str(rest);
        hidden
    }

    /// The same without the names of users, also of those that nobody else tells of, in the paths of their homes.
    fn without_users(&mut self, text: &str, home: &str, end: &[char]) -> String {
        const ENDS: [char; 6] = ['"', '\'', '`', ',', ';', ')'];
        let mut hidden = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(home) {
            hidden.push_str(before);
            hidden.push_str(home);
            // A name may hold blanks where the path goes on behind it.
            let whole = after.find(|c| end.contains(&c) || ENDS.contains(&c)).filter(|at| after[*at..].starts_with(end));
            let word = after.find(|c: char| c.is_whitespace() || end.contains(&c) || ENDS.contains(&c));
            let at = if home.contains('\\') { whole.or(word) } else { word };
            let (name, behind) = after.split_at(at.unwrap_or(after.len()));
            let known = self.words.iter().find(|(word, instead)| word == name || instead == name);
            let instead = known.map(|(_, instead)| instead.clone());
            if !name.is_empty() {
                hidden.push_str(&instead.unwrap_or_else(|| self.number("user", name.to_owned())));
            }
            rest = behind;
        }
        hidden.push_str(rest);
        hidden
    }

    /// An address, an address with a port, or another word.
    fn token(&mut self, token: &str) -> String {
        // A sentence may end behind it.
        let address = token.trim_end_matches(['.', ':']);
        let end = token.get(address.len()..).unwrap_or_default();
        if let Ok(address) = address.parse() {
            return format!("{}{end}", self.instead_of(address));
        }
        if is_hardware(address) {
            return format!("{}{end}", self.instead_of_hardware(address));
        }
        match address.rsplit_once(':').map(|(address, port)| (address.parse::<Ipv4Addr>(), port)) {
            Some((Ok(address), port)) => format!("{}:{port}{end}", self.instead_of(address.into())),
            _ => token.to_owned(),
        }
    }

    fn instead_of_hardware(&mut self, address: &str) -> String {
        let known = self.hardware.iter().position(|known| known.eq_ignore_ascii_case(address));
        let number = known.unwrap_or(self.hardware.len());
        if known.is_none() {
            self.hardware.push(address.to_owned());
        }
        let [.., high, low] = number.saturating_add(1).to_be_bytes();
        format!("02:00:00:00:{high:02x}:{low:02x}")
    }

    fn instead_of(&mut self, address: IpAddr) -> IpAddr {
        if is_everybodys(address) {
            return address;
        }
        let of_family = self.addresses.keys().filter(|known| known.is_ipv4() == address.is_ipv4()).count();
        let number = of_family + 1;
        *self.addresses.entry(address).or_insert_with(|| {
            if address.is_ipv4() {
                let [a, b, c] = EXAMPLE_V4;
                // There are not so many addresses; beyond them all look the same.
                Ipv4Addr::new(a, b, c, u8::try_from(number).unwrap_or(u8::MAX)).into()
            } else {
                Ipv6Addr::from(u128::from(EXAMPLE_V6) << 96 | number as u128).into()
            }
        })
    }
}

/// Fields whose values are not anybody's words: a name may be like one of them, and a version like an address.
fn is_kept(field: &str) -> bool {
    const KEPT: [&str; 11] =
        ["type", "time", "worst", "wsl_version", "mode", "way", "answer", "check", "severity", "shell", "kernel"];
    KEPT.contains(&field)
}

/// Whether it is an address of a network card: six bytes.
fn is_hardware(text: &str) -> bool {
    let bytes: Vec<&str> = text.split(':').collect();
    bytes.len() == 6 && bytes.iter().all(|byte| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Addresses that are the same on every machine.
fn is_everybodys(address: IpAddr) -> bool {
    const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_broadcast() || v4.is_link_local() || v4 == TUNNEL,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
    }
}

/// Replaces a word where it stands alone.
fn replace_word(text: &str, word: &str, instead: &str) -> String {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(word) {
        let alone = !before.ends_with(is_inside) && !after.starts_with(is_inside);
        replaced.push_str(before);
        replaced.push_str(if alone { instead } else { word });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_is_hidden_the_same_way_everywhere() {
        let mut redactor = Redactor::default();
        let text = "172.28.20.5:8080 via 172.28.16.1, (fe80::215:5dff:fe01:203)/64, again 172.28.20.5. Kept: 127.0.0.1:80, [::1]:80, ::, 0.0.0.0, 10.255.255.254, 1.2";
        assert_eq!(
            redactor.text(text),
            "192.0.2.1:8080 via 192.0.2.2, (2001:db8::1)/64, again 192.0.2.1. Kept: 127.0.0.1:80, [::1]:80, ::, 0.0.0.0, 10.255.255.254, 1.2"
        );
    }

    #[test]
    fn names_are_hidden_where_they_stand_alone() {
        let mut redactor = Redactor::default();
        redactor.hide("host", ["box".to_owned()]);
        redactor.hide("user", ["ada".to_owned(), "ad".to_owned()]);
        assert_eq!(
            redactor.text(r"127.0.1.1 box.local box; C:\Users\ada; adapter boxes"),
            r"127.0.1.1 host-1.local host-1; C:\Users\user-1; adapter boxes"
        );
    }

    #[test]
    fn users_are_hidden_in_the_paths_of_their_homes() {
        let mut redactor = Redactor::default();
        redactor.hide("user", ["ada".to_owned()]);
        for (text, hidden) in [
            ("/home/ada/x of `/home/bo`, /home/bo", "/home/user-1/x of `/home/user-2`, /home/user-2"),
            (r"kernel=C:\Users\Max Muster\vm and bob", r"kernel=C:\Users\user-3\vm and bob"),
            (r"kernel=C:\\Users\\Max Muster\\vm; C:\Users\Eve is", r"kernel=C:\\Users\\user-3\\vm; C:\Users\user-4 is"),
            ("/mnt/c/Users/Eve/.wslconfig", "/mnt/c/Users/user-4/.wslconfig"),
            ("/home/ of bo", "/home/ of bo"),
        ] {
            assert_eq!(redactor.text(text), hidden);
        }
    }

    #[test]
    fn addresses_of_network_cards_are_hidden() {
        let mut redactor = Redactor::default();
        let text = "ether saddr 00:15:5D:01:02:03 drop; 00:15:5d:01:02:03, 00:15:5d:01:02:04.";
        let hidden = "ether saddr 02:00:00:00:00:01 drop; 02:00:00:00:00:01, 02:00:00:00:00:02.";
        assert_eq!(redactor.text(text), hidden);
    }

    #[test]
    fn versions_and_words_of_the_format_stay_whatever_the_machine_is_called() {
        let mut facts = Facts { port: 8080, ..Facts::default() };
        facts.linux.kernel = "6.6.87.2-microsoft-standard-WSL2".to_owned();
        facts.wsl.version = Some("2.6.1.0".to_owned());
        let examined = Examination::of(&facts, jiff::Timestamp::UNIX_EPOCH);
        let mut redactor = Redactor::default();
        redactor.hide("host", ["linux", "fails", "doctor", "inside4", "listener"].map(str::to_owned));
        let hidden = redactor.examination(&examined).unwrap();
        assert_eq!((hidden.linux.kernel, hidden.wsl_version), (examined.linux.kernel, examined.wsl_version));
        assert_eq!((hidden.worst, hidden.findings.len()), (examined.worst, examined.findings.len()));
    }

    #[test]
    fn programs_of_windows_and_of_other_ports_are_hidden() {
        let answer: serde_json::Value = serde_json::from_str(include_str!("../windows/transcripts/nat.json")).unwrap();
        let text = answer.to_string().replace("wslrelay", "acme-secret");
        let windows = crate::windows::parse(&text).unwrap();
        let mut facts = Facts { windows: crate::windows::Windows::Facts(Box::new(windows)), ..Facts::default() };
        let mut other = crate::output::samples::listener("0.0.0.0");
        other.command = Some("acme-web".to_owned());
        facts.linux.other_listeners = vec![other];
        let hidden = Redactor::of(&facts).text("acme-web, acme-secret (pid 4), svchost");
        assert_eq!(hidden, "program-1, program-2 (pid 4), svchost");
    }
}
