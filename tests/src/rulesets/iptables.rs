//! For either kind of iptables, as `iptables-restore` reads it: every table, so that nothing of the last one is left.

use std::fmt::Write as _;

use fastrand::Rng;

use super::{MARK, Ruleset};

/// Tables, with the chains of them that a packet from outside meets, in its order; and those that it does not.
const TABLES: [(&str, &[&str], &[&str]); 4] = [
    ("raw", &["PREROUTING"], &["OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT"], &["FORWARD", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT"], &["FORWARD", "OUTPUT"]),
    ("security", &["INPUT"], &["FORWARD", "OUTPUT"]),
];
/// Rules that match the packet without a verdict, or do not match it.
const DECOYS: [&str; 10] = [
    "-p tcp --dport 8080",
    "-p tcp --dport 9999 -j DROP",
    "-s 203.0.113.7 -j DROP",
    "-p udp -j DROP",
    "-p tcp -m multiport --dports 80,443 -j DROP",
    "-p tcp --dport 22 -g unused",
    "-i lo -j DROP",
    "! -i eth+ -j DROP",
    "! -s 172.16.0.0/12 -j DROP",
    "-p tcp ! --dport 8000:8999 -j DROP",
];
/// Killers; the last two only reject, which is possible in `filter` alone.
const KILLERS: [&str; 7] = [
    "-p tcp --dport 8080 -j DROP",
    "-p tcp -d 172.28.16.2 --dport 8080 -j DROP",
    "-j DROP",
    "-p tcp -m multiport --dports 80,8080,8443 -j DROP",
    "-s 172.16.0.0/12 -p tcp --dport 8000:8100 -j DROP",
    "-p tcp --dport 8080 -j REJECT --reject-with tcp-reset",
    "-p tcp --dport 8080 -j REJECT",
];
const ONLY_DROP: usize = 5;

pub(super) fn random(seed: u64) -> Ruleset {
    let mut random = Rng::with_seed(seed);
    let places: Vec<(&str, &str)> =
        TABLES.iter().flat_map(|(table, chains, _)| chains.iter().map(|chain| (*table, *chain))).collect();
    let killing = places[random.usize(..places.len())];
    let mut ruleset = Ruleset { text: String::new(), place: ("ip", String::new(), String::new()), policy: false, rejects: false };
    for (table, met, others) in TABLES {
        let mut written = Table { random: &mut random, name: table, policies: String::new(), rules: String::new() };
        for chain in met {
            if (table, *chain) == killing {
                written.killer(chain, &mut ruleset);
            } else {
                written.harmless(chain);
            }
        }
        for chain in others {
            let _ = writeln!(written.policies, ":{chain} ACCEPT");
            // Only answers go that way, to other ports.
            let _ = writeln!(written.rules, "-A {chain} {}", KILLERS[written.random.usize(..2)]);
        }
        let Table { policies, rules, .. } = written;
        let _ = write!(ruleset.text, "*{table}\n{policies}:unused -\n{rules}-A unused {}\nCOMMIT\n", KILLERS[0]);
    }
    ruleset
}

/// One table on its way to be written.
struct Table<'a> {
    random: &'a mut Rng,
    name: &'static str,
    policies: String,
    rules: String,
}

impl Table<'_> {
    fn decoys(&mut self, chain: &str) {
        for _ in 0..self.random.usize(..4) {
            let decoy = DECOYS[self.random.usize(..DECOYS.len())];
            let _ = writeln!(self.rules, "-A {chain} {decoy}");
        }
    }

    /// Lets the packet through; sometimes with a twin of a killer behind the rule that does so.
    fn harmless(&mut self, chain: &str) {
        let _ = writeln!(self.policies, ":{chain} ACCEPT");
        self.decoys(chain);
        if self.random.bool() {
            let twin = KILLERS[self.random.usize(..ONLY_DROP)];
            let _ = write!(self.rules, "-A {chain} -p tcp --dport 8080 -j ACCEPT\n-A {chain} {twin}\n");
        }
    }

    /// Kills the packet after up to three jumps or gotos, or by the chain's policy.
    fn killer(&mut self, base: &str, ruleset: &mut Ruleset) {
        ruleset.place = ("ip", self.name.to_owned(), base.to_owned());
        if self.random.u8(..6) == 0 {
            let side = format!("side-{base}");
            let _ = write!(self.policies, ":{base} DROP\n:{side} -\n");
            self.decoys(base);
            let _ = writeln!(self.rules, "-A {base} -j {side}");
            self.decoys(&side);
            let _ = write!(self.rules, "-A {side} -p tcp --dport 8080 -j RETURN\n-A {side} -j DROP\n");
            ruleset.policy = true;
            return;
        }
        let _ = writeln!(self.policies, ":{base} ACCEPT");
        let kinds = if self.name == "filter" { KILLERS.len() } else { ONLY_DROP };
        let kind = self.random.usize(..kinds);
        ruleset.rejects = kind >= ONLY_DROP;
        let twin = KILLERS[self.random.usize(..ONLY_DROP)];
        let depth = self.random.usize(..4);
        for level in 0..=depth {
            let name = |level: usize| if level == 0 { base.to_owned() } else { format!("level{level}-{base}") };
            let (here, next) = (name(level), name(level + 1));
            self.decoys(&here);
            if level == depth {
                let killer = KILLERS[kind];
                let (matches, target) = killer.rsplit_once("-j ").unwrap_or(("", killer));
                let _ = write!(self.rules, "-A {here} {matches}-m comment --comment \"{MARK}\" -j {target}\n-A {here} {twin}\n");
                ruleset.place.2 = here;
            } else {
                let _ = writeln!(self.policies, ":{next} -");
                let verb = if self.random.bool() { "-j" } else { "-g" };
                let matches = if self.random.bool() { "-p tcp --dport 8080 " } else { "" };
                let _ = write!(self.rules, "-A {here} {matches}{verb} {next}\n-A {here} {twin}\n");
            }
        }
    }
}
