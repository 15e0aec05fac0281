//! More faults than one: the report names what stands behind the first. Where those are rules, what it prints lets the client in at once.

use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::firewall::{drop, reject};
use super::{Expect, Scenario, serve, serve_any};
use crate::evidence::Backend::{IptablesLegacy, IptablesNft, Nft};
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::{Binding, Lab, LabError, PORT, Side};

const NEXT: &str = "once that lets it through, rule";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        twice_by_legacy(),
        twice_by_iptables(),
        two_tables(),
        two_worlds(),
        two_worlds_at_one_place(),
        nobody_behind(),
        nobody_behind_a_reject(),
        loopback_behind(),
        wall_behind(),
        both_directions(),
    ]
}

/// A script that ran twice. The two look alike where they are listed.
fn twice_by_legacy() -> Scenario {
    let title = "iptables (legacy) drops in filter INPUT by two rules of the same words";
    let base = drop("drop-twice-iptables-legacy", title, IptablesLegacy, Stage::InputFilter, |lab| twice(lab, "iptables-legacy"));
    Scenario { expect: Expect { says: NEXT, ..base.expect }, ..base }
}

fn twice_by_iptables() -> Scenario {
    let title = "iptables (nft) drops in filter INPUT by two rules of the same words";
    let base = drop("drop-twice-iptables-nft", title, IptablesNft, Stage::InputFilter, |lab| twice(lab, "iptables-nft"));
    Scenario { mended: Some(Mended::RemovedAll(2)), expect: Expect { says: NEXT, ..base.expect }, ..base }
}

fn twice(lab: &mut Lab, program: &'static str) -> Result<(), LabError> {
    serve_any(lab)?;
    for _ in 0..2 {
        lab.iptables(program, &format!("-A INPUT -p tcp --dport {PORT} -j DROP"))?;
    }
    Ok(())
}

fn two_tables() -> Scenario {
    let base = drop("drop-two-tables-nft", "two tables of nftables drop the port", Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        let table = |name: &str, priority: &str| {
            format!(
                "table inet {name} {{ chain input {{ type filter hook input priority {priority}; tcp dport {PORT} drop; }}; }}\n"
            )
        };
        lab.wsl.nft_script(&[table("first", "filter"), table("second", "filter + 10")].concat())
    });
    let expect = Expect { says: "of inet second input would stop it next", ..base.expect };
    Scenario { mended: Some(Mended::RemovedAll(2)), expect, ..base }
}

fn two_worlds() -> Scenario {
    let title = "nftables drops in a prerouting chain, and iptables (legacy) would drop in filter INPUT";
    let base = drop("drop-two-worlds", title, Nft, Stage::PreroutingMangle, |lab| {
        serve_any(lab)?;
        lab.wsl.nft("inet", "type filter hook prerouting priority mangle; policy accept", &format!("tcp dport {PORT} drop"))?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -j DROP"))
    });
    let expect = Expect { says: NEXT, ..base.expect };
    Scenario {
        tools: &["nft", "iptables-legacy"],
        mended: Some(Mended::RemovedAll(2)),
        note: "two firewalls are at work",
        expect,
        ..base
    }
}

/// Which of two is asked first at one priority, the rules do not tell; the packet does.
fn two_worlds_at_one_place() -> Scenario {
    let title = "nftables drops in an input chain, and iptables (legacy) would drop at the same priority";
    let base = drop("drop-two-worlds-equal", title, Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        lab.iptables("iptables-legacy", &format!("-A INPUT -p tcp --dport {PORT} -j DROP"))?;
        // The kernel asks what came last first.
        drop_port(lab)
    });
    let expect = Expect { says: NEXT, ..base.expect };
    Scenario { name: base.name, title: base.title, break_it: base.break_it, expect, ..two_worlds() }
}

/// What refuses a SYN is heard by the client, and is no less in front of something.
fn nobody_behind_a_reject() -> Scenario {
    let title = "nftables rejects the port, and nothing listens on it";
    let base = reject("reject-before-no-listener", title, Nft, Errno::ECONNREFUSED, |lab| {
        let rule = format!("tcp dport {PORT} reject with tcp reset");
        lab.wsl.nft("inet", "type filter hook input priority filter; policy accept", &rule)
    });
    let expect = Expect { says: "behind that, as things are now, nothing listens on port 8080", ..base.expect };
    Scenario { mended: None, expect, ..base }
}

fn nobody_behind() -> Scenario {
    let title = "nftables drops the port, and nothing listens on it";
    let base = drop("drop-before-no-listener", title, Nft, Stage::InputFilter, drop_port);
    let expect = Expect { says: "behind that, as things are now, nothing listens on port 8080", ..base.expect };
    Scenario { mended: None, expect, ..base }
}

fn loopback_behind() -> Scenario {
    let title = "nftables drops the port, and the server listens on 127.0.0.1 only";
    let base = drop("drop-before-loopback", title, Nft, Stage::InputFilter, |lab| {
        serve(lab, Side::Wsl, Binding::new(Ipv4Addr::LOCALHOST, PORT))?;
        drop_port(lab)
    });
    let expect = Expect { says: "listens on 127.0.0.1:8080 only, so the client would be refused next", ..base.expect };
    Scenario { mended: None, expect, ..base }
}

fn drop_port(lab: &mut Lab) -> Result<(), LabError> {
    lab.wsl.nft("inet", "type filter hook input priority filter; policy accept", &format!("tcp dport {PORT} drop"))
}

/// Docker's policy without its rules, on a machine that sends nothing on either.
fn wall_behind() -> Scenario {
    let base = super::routing::unforwarded();
    Scenario {
        name: "ip-forward-off-before-drop",
        title: "DNAT to another machine while ip_forward is off, and the FORWARD chain drops",
        group: nobody_behind().group,
        break_it: |lab| {
            super::routing::lead_to_backend(lab)?;
            lab.wsl.nft(lab.family(), "type filter hook forward priority filter; policy drop", "")
        },
        // One for each direction.
        mended: Some(Mended::SetAndAdded(2)),
        expect: Expect { says: "once that lets it through, the policy of ip", ..base.expect },
        ..base
    }
}

/// A kill switch closes what comes in and what goes out.
fn both_directions() -> Scenario {
    let title = "a kill switch drops in INPUT and rejects in OUTPUT all but a tunnel";
    let base = drop("drop-both-directions", title, Nft, Stage::InputFilter, |lab| {
        serve_any(lab)?;
        lab.wsl.nft_script(
            "table inet kill {
                chain input {
                    type filter hook input priority filter; policy drop
                    iifname { lo, wg0 } accept
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                    ct state established,related accept
                }
                chain output {
                    type filter hook output priority filter; policy accept
                    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                    oifname != wg0 fib daddr type != local reject
                }
            }",
        )
    });
    let expect = Expect { says: "the answer would be rejected by rule handle", ..base.expect };
    Scenario { mended: Some(Mended::Added(2)), options: &["NFT_FIB_INET"], expect, ..base }
}
