//! Firewalls that drop or reject, by each of the three back ends, in each table that can.

use nix::errno::Errno;

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend::{self, IptablesLegacy, IptablesNft, Nft};
use crate::journey::{Outcome, Stage};
use crate::lab::held::hold_a_dropping_table;
use crate::lab::mend::Mended;
use crate::lab::network::Way;
use crate::lab::path::{answer, inbound};
use crate::lab::sides::CLIENT_V4;
use crate::lab::{Lab, LabError, PORT, Seen, Side};

/// Every drop of netfilter has this reason; kernels before 5.17 give none.
const REASON: Option<(&str, (u32, u32))> = Some(("NETFILTER_DROP", (5, 18)));

const NFT: &[&str] = &["nft"];
const IPTABLES_NFT: &[&str] = &["iptables-nft"];
const LEGACY: &[&str] = &["iptables-legacy"];

pub(super) fn scenarios() -> Vec<Scenario> {
    [
        drops(),
        of_one_interface(),
        rejects(),
        vec![both_worlds(), deep(), second_table(), held(), unmarked()],
        reverse_path_checks(),
    ]
    .concat()
}

/// What would change the rule, the kernel refuses: whose table it is has to be said instead.
fn held() -> Scenario {
    let base = drop("drop-held-nft", "nftables drops by a table that belongs to a program", Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        hold_a_dropping_table(lab)
    });
    let expect = Expect { says: "nobody else may change it", ..base.expect };
    Scenario { mended: None, expect, ..base }
}

/// The kernel names no rule for a packet whose mark for that somebody takes away: it is followed.
fn unmarked() -> Scenario {
    let title = "nftables drops, behind a rule that takes the kernel's mark for tracing off the packet";
    let base = drop("drop-untraced-nft", title, Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        let chain = "type filter hook input priority filter; policy accept";
        lab.wsl.nft("inet", chain, &format!("meta nftrace set 0\ntcp dport {PORT} drop"))
    });
    let says = "which by the rules as they are now is the only one there that may do so";
    Scenario { expect: Expect { proved: false, inferred: true, says, ..base.expect }, ..base }
}

fn drops() -> Vec<Scenario> {
    let (raw, mangle, filter) = (Stage::PreroutingRaw, Stage::PreroutingMangle, Stage::InputFilter);
    vec![
        drop("drop-filter-iptables-nft", "iptables (nft) drops in filter INPUT", IptablesNft, filter, |lab| {
            drop_by_iptables(lab, "iptables-nft", "filter", "INPUT")
        }),
        drop("drop-mangle-iptables-nft", "iptables (nft) drops in mangle PREROUTING", IptablesNft, mangle, |lab| {
            drop_by_iptables(lab, "iptables-nft", "mangle", "PREROUTING")
        }),
        drop("drop-raw-iptables-nft", "iptables (nft) drops in raw PREROUTING", IptablesNft, raw, |lab| {
            drop_by_iptables(lab, "iptables-nft", "raw", "PREROUTING")
        }),
        drop("drop-filter-iptables-legacy", "iptables (legacy) drops in filter INPUT", IptablesLegacy, filter, |lab| {
            drop_by_iptables(lab, "iptables-legacy", "filter", "INPUT")
        }),
        drop("drop-mangle-iptables-legacy", "iptables (legacy) drops in mangle PREROUTING", IptablesLegacy, mangle, |lab| {
            drop_by_iptables(lab, "iptables-legacy", "mangle", "PREROUTING")
        }),
        drop("drop-raw-iptables-legacy", "iptables (legacy) drops in raw PREROUTING", IptablesLegacy, raw, |lab| {
            drop_by_iptables(lab, "iptables-legacy", "raw", "PREROUTING")
        }),
        drop("drop-filter-nft", "nftables drops in an input chain at priority filter", Nft, filter, |lab| {
            drop_by_nft(lab, "input", "filter")
        }),
        drop("drop-mangle-nft", "nftables drops in a prerouting chain at priority mangle", Nft, mangle, |lab| {
            drop_by_nft(lab, "prerouting", "mangle")
        }),
        drop("drop-raw-nft", "nftables drops in a prerouting chain at priority raw", Nft, raw, |lab| {
            drop_by_nft(lab, "prerouting", "raw")
        }),
    ]
}

/// Rules about more than the port, which are not to be opened wider than they close.
fn of_one_interface() -> Vec<Scenario> {
    let filter = Stage::InputFilter;
    let added = |scenario| Scenario { mended: Some(Mended::Added(1)), ..scenario };
    vec![
        added(drop("drop-interface-nft", "nftables drops a range of ports on eth0", Nft, filter, |lab| {
            serve_any(lab)?;
            let chain = "type filter hook input priority filter; policy accept";
            lab.wsl.nft("inet", chain, "iifname \"eth0\" tcp dport 8000-9000 drop")
        })),
        added(drop("drop-interface-iptables-nft", "iptables (nft) drops all but what comes by lo", IptablesNft, filter, |lab| {
            serve_any(lab)?;
            lab.iptables("iptables-nft", "-A INPUT ! -i lo -p tcp --dport 8000:9000 -j DROP")
        })),
        added(drop("drop-interface-iptables-legacy", "iptables (legacy) drops all on eth0", IptablesLegacy, filter, |lab| {
            serve_any(lab)?;
            lab.iptables("iptables-legacy", "-A INPUT -i eth0 -p tcp -j DROP")
        })),
    ]
}

fn rejects() -> Vec<Scenario> {
    vec![
        reject("reject-reset-nft", "nftables rejects with a TCP reset", Nft, Errno::ECONNREFUSED, |lab| {
            reject_by_nft(lab, "reject with tcp reset")
        }),
        reject("reject-icmp-nft", "nftables rejects as administratively prohibited", Nft, Errno::EHOSTUNREACH, |lab| {
            reject_by_nft(lab, "reject with icmpx admin-prohibited")
        }),
        reject("reject-reset-iptables-nft", "iptables (nft) rejects with a TCP reset", IptablesNft, Errno::ECONNREFUSED, |lab| {
            reject_by_iptables(lab, "iptables-nft", "tcp-reset")
        }),
        reject(
            "reject-icmp-iptables-nft",
            "iptables (nft) rejects as port unreachable",
            IptablesNft,
            Errno::ECONNREFUSED,
            |lab| reject_by_iptables(lab, "iptables-nft", "icmp-port-unreachable"),
        ),
        reject(
            "reject-icmp-iptables-legacy",
            "iptables (legacy) rejects as host unreachable",
            IptablesLegacy,
            Errno::EHOSTUNREACH,
            |lab| reject_by_iptables(lab, "iptables-legacy", "icmp-host-unreachable"),
        ),
    ]
}

/// Rules of nftables before it, which let the packet pass: only the counter tells whose rule it was.
fn both_worlds() -> Scenario {
    let title = "iptables (legacy) drops in filter INPUT, and nftables has rules there, too";
    let base = drop("drop-beside-nft", title, IptablesLegacy, Stage::InputFilter, |lab| {
        nft(lab, "input", "filter", "accept")?;
        drop_by_iptables(lab, "iptables-legacy", "filter", "INPUT")
    });
    Scenario { tools: &["nft", "iptables-legacy"], note: "two firewalls are at work", ..base }
}

/// Through verdict maps, sets, jumps and gotos.
fn deep() -> Scenario {
    let base = drop("drop-deep-nft", "nftables drops five chains deep, behind verdict maps", Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        let (family, client) = (lab.family(), lab.at(CLIENT_V4));
        let of = if lab.v6 { "ipv6_addr" } else { "ipv4_addr" };
        lab.wsl.nft_script(&format!(
            "table inet lab {{
                set blocked {{ type {of}; elements = {{ {client} }}; }}
                chain fifth {{ counter; {family} saddr @blocked counter drop comment \"blocked\"; }}
                chain fourth {{ goto fifth; }}
                chain third {{ meta l4proto vmap {{ tcp : jump fourth }}; }}
                chain second {{ tcp dport vmap {{ {PORT} : goto third, 81 : drop }}; }}
                chain first {{ iifname vmap {{ \"eth0\" : jump second }}; }}
                chain input {{ type filter hook input priority filter + 5; policy accept; jump first; }}
            }}"
        ))
    });
    Scenario {
        mended: Some(Mended::Added(1)),
        expect: Expect { firewall: Some((Nft, "fifth")), says: "(\"blocked\")", ..base.expect },
        ..base
    }
}

/// What one table accepts, the next one is still asked about.
fn second_table() -> Scenario {
    let title = "one table of nftables lets the port in, and the policy of another drops it";
    let base = drop("drop-second-table-nft", title, Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        lab.wsl.nft_script(&format!(
            "table inet first {{
                chain input {{ type filter hook input priority filter; tcp dport {PORT} accept; }}
            }}
            table inet second {{
                chain input {{
                    type filter hook input priority filter + 10; policy drop
                    ct state established accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                }}
            }}"
        ))
    });
    Scenario { mended: Some(Mended::Added(1)), expect: Expect { says: "the policy of inet second input", ..base.expect }, ..base }
}

/// Rules that ask for the way back, as firewalld's: they are content when there is one.
fn reverse_path_checks() -> Vec<Scenario> {
    let title = "nftables drops what would be answered by another interface (fib), as firewalld does";
    let legacy = "iptables (legacy) drops what would be answered by another interface (-m rpfilter)";
    let by_nft = drop("drop-reverse-path-nft", title, Nft, Stage::PreroutingMangle, |lab| {
        back_by_another(lab)?;
        let chain = "type filter hook prerouting priority mangle + 10; policy accept";
        lab.wsl.nft(lab.family(), chain, "fib saddr . mark . iif oif missing drop")
    });
    let by_nft = Scenario { options: &["NFT_FIB_IPV4"], ..by_nft };
    let by_legacy = drop("drop-reverse-path-iptables-legacy", legacy, IptablesLegacy, Stage::PreroutingRaw, |lab| {
        back_by_another(lab)?;
        lab.iptables("iptables-legacy", "-t raw -A PREROUTING -i eth0 -m rpfilter --invert -j DROP")
    });
    let mended = |base: Scenario| Scenario { behind: Some(Side::Backend), mended: Some(Mended::Set), ..base };
    vec![mended(by_nft), mended(by_legacy)]
}

/// A server, and a route that leads its answers elsewhere.
fn back_by_another(lab: &mut Lab) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.wsl.route_to(lab.at(CLIENT_V4), Way::Device("eth1"))
}

pub(super) fn drop(
    name: &'static str,
    title: &'static str,
    backend: Backend,
    stage: Stage,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = template(name, title, "firewall");
    Scenario {
        tools: tools(backend),
        break_it,
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        expect: Expect {
            outcomes: &[Outcome::Dropped],
            died: Some((stage, Side::Wsl)),
            reason: REASON,
            codes: &[Code::FirewallDrop],
            firewall: Some((backend, chain(backend, stage))),
            path: inbound(stage),
            ..base.expect
        },
        ..base
    }
}

pub(super) fn reject(
    name: &'static str,
    title: &'static str,
    backend: Backend,
    errno: Errno,
    break_it: fn(&mut Lab) -> Result<(), LabError>,
) -> Scenario {
    let base = drop(name, title, backend, Stage::InputFilter, break_it);
    Scenario {
        client: Seen::Failed(errno),
        expect: Expect {
            outcomes: &[Outcome::Rejected],
            codes: &[Code::FirewallReject],
            path: [inbound(Stage::InputFilter), answer()].concat(),
            ..base.expect
        },
        ..base
    }
}

fn tools(backend: Backend) -> &'static [&'static str] {
    match backend {
        Nft => NFT,
        IptablesNft => IPTABLES_NFT,
        IptablesLegacy => LEGACY,
    }
}

fn chain(backend: Backend, stage: Stage) -> &'static str {
    match (backend, stage) {
        (Nft, Stage::InputFilter) => "input",
        (Nft, _) => "prerouting",
        (_, Stage::InputFilter) => "INPUT",
        _ => "PREROUTING",
    }
}

fn rule(table: &str, chain: &str, target: &str) -> String {
    format!("-t {table} -A {chain} -p tcp --dport {PORT} -j {target}")
}

fn nft(lab: &Lab, hook: &str, priority: &str, verdict: &str) -> Result<(), LabError> {
    let kind = format!("type filter hook {hook} priority {priority}; policy accept");
    lab.wsl.nft("inet", &kind, &format!("tcp dport {PORT} counter {verdict}"))
}

fn drop_by_iptables(lab: &mut Lab, program: &'static str, table: &str, chain: &str) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.iptables(program, &rule(table, chain, "DROP"))
}

fn drop_by_nft(lab: &mut Lab, hook: &str, priority: &str) -> Result<(), LabError> {
    serve_any(lab)?;
    nft(lab, hook, priority, "drop")
}

fn reject_by_iptables(lab: &mut Lab, program: &'static str, with: &str) -> Result<(), LabError> {
    serve_any(lab)?;
    let with = match (lab.v6, with) {
        (true, "icmp-port-unreachable") => "icmp6-port-unreachable",
        (true, "icmp-host-unreachable") => "icmp6-addr-unreachable",
        (_, with) => with,
    };
    lab.iptables(program, &rule("filter", "INPUT", &format!("REJECT --reject-with {with}")))
}

fn reject_by_nft(lab: &mut Lab, verdict: &str) -> Result<(), LabError> {
    serve_any(lab)?;
    nft(lab, "input", "filter", verdict)
}
