//! Hides addresses and names in what goes into a bug report. Addresses become those of the documentation's networks, so that what
//! is hidden still reads as an address, and the same one everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{Examination, Facts};

/// Programs whose names tell nothing of their user, and much of the fault.
const WELL_KNOWN: [&str; 12] =
    ["docker-proxy", "dockerd", "init", "node", "python3", "python", "java", "nginx", "wslrelay", "svchost", "systemd", "sshd"];
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
}

impl Redactor {
    /// Hides the names of this machine, its users and their programs.
    pub fn of(facts: &Facts) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let users = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
        let listeners = facts.linux.listeners.iter().chain(&facts.linux.elsewhere);
        let programs = listeners.filter_map(|listener| listener.command.clone());
        let programs = programs.filter(|name| !WELL_KNOWN.contains(&name.as_str()));
        let mut redactor = Self::default();
        redactor.hide("host", [host.trim().to_owned()]);
        redactor.hide("user", users.filter(|user| user != "root"));
        redactor.hide("program", programs);
        redactor
    }

    fn hide(&mut self, kind: &str, names: impl IntoIterator<Item = String>) {
        let mut count = 0;
        for name in names {
            if name.len() >= SHORTEST && name != "localhost" && !self.words.iter().any(|(known, _)| *known == name) {
                count += 1;
                self.words.push((name, format!("{kind}-{count}")));
            }
        }
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
            Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, self.value(value))).collect()),
            other => other,
        }
    }

    fn text(&mut self, text: &str) -> String {
        let named = self.words.iter().fold(text.to_owned(), |text, (word, instead)| replace_word(&text, word, instead));
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

    /// An address, an address with a port, or another word.
    fn token(&mut self, token: &str) -> String {
        // A sentence may end behind it.
        let address = token.trim_end_matches(['.', ':']);
        let end = token.get(address.len()..).unwrap_or_default();
        if let Ok(address) = address.parse() {
            return format!("{}{end}", self.instead_of(address));
        }
        match address.rsplit_once(':').map(|(address, port)| (address.parse::<Ipv4Addr>(), port)) {
            Some((Ok(address), port)) => format!("{}:{port}{end}", self.instead_of(address.into())),
            _ => token.to_owned(),
        }
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
}
