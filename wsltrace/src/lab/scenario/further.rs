//! More rules than one that drop: the report names them all, and what it prints lets the client in at once.

use super::firewall::drop;
use super::{Expect, Scenario, serve_any};
use crate::evidence::Backend::{IptablesLegacy, IptablesNft, Nft};
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::{Lab, LabError, PORT};

const NEXT: &str = "once that lets it through, rule";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![twice_by_legacy(), twice_by_iptables(), two_tables(), two_worlds()]
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
