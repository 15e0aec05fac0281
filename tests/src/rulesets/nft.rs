//! For nft.

use std::fmt::Write as _;

use fastrand::Rng;

use super::{MARK, Ruleset};

/// A place where a base chain may hang, in the order in which a packet meets them.
const PLACES: [(&str, i32); 10] = [
    ("prerouting", -310),
    ("prerouting", -160),
    ("prerouting", -20),
    ("prerouting", 40),
    ("input", -180),
    ("input", -5),
    ("input", 0),
    ("input", 5),
    ("input", 60),
    ("input", 200),
];
/// Rules that match the packet without a verdict, or do not match it.
const DECOYS: [&str; 17] = [
    "tcp dport 8080 counter",
    "tcp dport 9999 drop",
    "ip saddr 203.0.113.7 counter drop",
    "ct state established accept",
    "meta l4proto udp drop",
    "tcp dport { 80, 443 } drop",
    "tcp dport vmap { 22 : drop, 23 : accept }",
    "tcp dport vmap @ways",
    "ip saddr @strangers drop",
    "ip saddr . tcp dport @pairs drop",
    "tcp dport != @served drop",
    "iifname { \"lo\", \"wl0\" } drop",
    "iifname != \"eth*\" drop",
    "ct state new counter",
    "ip saddr != 172.16.0.0/12 drop",
    "meta mark set 0x5",
    "meta mark & 0x7 == 0x3 drop",
];
/// A decoy that only somebody who sees the packet's other bytes can tell to be one.
const OPEN: &str = "meta length 1500 drop";
/// Sets that every table has.
const SETS: &str = "\tset served { type inet_service; elements = { 8080, 8443 }; }
\tset strangers { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.0-203.0.113.99 }; }
\tset pairs { type ipv4_addr . inet_service; elements = { 172.28.16.1 . 22 }; }
\tmap ways { type inet_service : verdict; elements = { 22 : drop, 23 : accept }; }
";
/// Killers; the last two only reject, which is not possible everywhere.
const KILLERS: [&str; 9] = [
    "tcp dport @served drop",
    "meta mark != 0x7 tcp dport 8080 drop",
    "tcp dport 8080 drop",
    "tcp dport 8080 counter drop",
    "counter drop",
    "tcp dport { 80, 8080, 8443 } drop",
    "ip saddr 172.16.0.0/12 tcp dport 8000-8100 drop",
    "tcp dport 8080 reject with tcp reset",
    "tcp dport 8080 counter reject",
];
const ONLY_DROP: usize = KILLERS.len() - 2;

pub(super) fn random(seed: u64) -> Ruleset {
    let mut random = Rng::with_seed(seed);
    let mut places: Vec<(&str, i32)> = PLACES.to_vec();
    random.shuffle(&mut places);
    places.truncate(random.usize(2..=6));
    places.sort_by_key(|place| PLACES.iter().position(|known| known == place));
    let killing = random.usize(..places.len());
    let mut ruleset = Ruleset { text: String::new(), place: ("", String::new(), String::new()), policy: false, rejects: false };
    for (number, (hook, priority)) in places.into_iter().enumerate() {
        let family = if random.bool() { "inet" } else { "ip" };
        let table = format!("t{number}");
        let mut body = String::new();
        let mut chain = Chain { random: &mut random, hook, text: &mut body };
        let kind = if number == killing { Some(chain.killer(family, &table, &mut ruleset)) } else { None };
        let policy = if kind == Some(Kind::Policy) { "drop" } else { "accept" };
        if kind.is_none() {
            chain.harmless(number > killing);
        }
        let base = format!("type filter hook {hook} priority {priority}; policy {policy};");
        let text = body.replace("BASE", &base);
        let _ = writeln!(ruleset.text, "table {family} {table} {{\n{SETS}{text}}}");
    }
    ruleset
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rule,
    Policy,
}

/// Writes the chains of one table; `BASE` stands for the line that hangs the base chain on its hook.
struct Chain<'a> {
    random: &'a mut Rng,
    hook: &'a str,
    text: &'a mut String,
}

impl Chain<'_> {
    fn decoys(&mut self) -> String {
        let count = self.random.usize(..4);
        (0..count).fold(String::new(), |mut text, _| {
            let decoy = if self.random.u8(..40) == 0 { OPEN } else { DECOYS[self.random.usize(..DECOYS.len())] };
            // The state of a packet is not known before conntrack saw it, and nobody wants it there.
            let _ = writeln!(text, "\t\t{decoy}");
            text
        })
    }

    /// A base chain that lets the packet through; with a twin of a killer that it does not reach, or, behind the killer, does.
    fn harmless(&mut self, behind: bool) {
        let decoys = self.decoys();
        let twin = KILLERS[self.random.usize(..ONLY_DROP)];
        let (before, after) = match (behind, self.random.u8(..3)) {
            (true, 0) => (String::new(), format!("\t\t{twin}\n")),
            (_, 1) => ("\t\ttcp dport 8080 accept\n".to_owned(), format!("\t\t{twin}\n")),
            _ => (String::new(), String::new()),
        };
        let _ =
            write!(self.text, "\tchain base {{\n\t\tBASE\n{decoys}{before}{after}\t}}\n\tchain unused {{\n\t\t{twin}\n\t}}\n");
    }

    /// A base chain that kills the packet, after up to three jumps or gotos, or by its policy.
    fn killer(&mut self, family: &'static str, table: &str, ruleset: &mut Ruleset) -> Kind {
        ruleset.place = (family, table.to_owned(), "base".to_owned());
        if self.random.u8(..6) == 0 {
            let (decoys, returning) = (self.decoys(), self.decoys());
            let _ = write!(
                self.text,
                "\tchain side {{\n{returning}\t\ttcp dport 8080 return\n\t\tdrop\n\t}}\n\tchain base {{\n\t\tBASE\n{decoys}\t\tjump side\n\t}}\n"
            );
            ruleset.policy = true;
            return Kind::Policy;
        }
        // Rejecting is possible in INPUT only before 5.9, and in prerouting with a reset only later.
        let kinds = if self.hook == "input" { KILLERS.len() } else { ONLY_DROP };
        let kind = self.random.usize(..kinds);
        let twin = KILLERS[self.random.usize(..ONLY_DROP)];
        ruleset.rejects = kind >= ONLY_DROP;
        let depth = self.random.usize(..4);
        let mut chains = Vec::new();
        for level in 0..=depth {
            let decoys = self.decoys();
            let base = if level == 0 { "\t\tBASE\n" } else { "" };
            let last = if level == depth {
                format!("\t\t{} comment \"{MARK}\"\n\t\t{twin}\n", KILLERS[kind])
            } else {
                let verb = if self.random.bool() { "jump" } else { "goto" };
                match self.random.u8(..3) {
                    0 => format!("\t\ttcp dport vmap {{ 22 : drop, 8080 : {verb} level{} }}\n\t\t{twin}\n", level + 1),
                    1 => format!("\t\ttcp dport 8080 {verb} level{}\n", level + 1),
                    _ => format!("\t\t{verb} level{}\n", level + 1),
                }
            };
            let name = if level == 0 { "base".to_owned() } else { format!("level{level}") };
            chains.push(format!("\tchain {name} {{\n{base}{decoys}{last}\t}}\n"));
            ruleset.place.2 = name;
        }
        // A chain must be known before it is jumped to.
        chains.reverse();
        self.text.push_str(&chains.concat());
        Kind::Rule
    }
}
