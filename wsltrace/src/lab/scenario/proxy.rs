//! Rules that hand a port to a transparent proxy which is not there.

use std::net::Ipv4Addr;

use super::firewall::drop;
use super::{Expect, Scenario, serve_any};
use crate::evidence::Backend::{self, IptablesLegacy, IptablesNft};
use crate::journey::Stage;
use crate::lab::{Binding, Lab, LabError, Listening, PORT};

pub(super) fn scenarios() -> Vec<Scenario> {
    let legacy = absent(
        "proxy-absent-iptables-legacy",
        "iptables (legacy) hands the port to a transparent proxy that does not run",
        IptablesLegacy,
        |lab| hand_over(lab, "iptables-legacy"),
    );
    let nft = absent(
        "proxy-absent-iptables-nft",
        "iptables (nft) hands the port to a transparent proxy that does not run",
        IptablesNft,
        |lab| hand_over(lab, "iptables-nft"),
    );
    vec![legacy, nft, opaque()]
}

/// nftables goes on as if the rule did not match.
fn opaque() -> Scenario {
    let base = super::listener::no_listener();
    Scenario {
        name: "proxy-opaque-nft",
        title: "nftables hands the port to a proxy whose socket is not transparent, and nothing else is there",
        tools: &["nft"],
        group: "firewall",
        options: &["NFT_TPROXY"],
        break_it: |lab| {
            let proxy = Listening::accepting(&lab.wsl, Binding::new(Ipv4Addr::UNSPECIFIED, 9999))?;
            lab.keep(proxy);
            let rule = format!("tcp dport {PORT} tproxy to :9999 meta mark set 1 accept");
            lab.wsl.nft("ip", "type filter hook prerouting priority mangle", &rule)
        },
        expect: Expect { says: "there is not transparent and gets nothing of it", ..base.expect },
        ..base
    }
}

fn absent(name: &'static str, title: &'static str, backend: Backend, break_it: fn(&mut Lab) -> Result<(), LabError>) -> Scenario {
    let base = drop(name, title, backend, Stage::PreroutingMangle, break_it);
    let expect = Expect { says: "and no proxy takes them there", ..base.expect };
    Scenario { options: &["NETFILTER_XT_TARGET_TPROXY"], expect, ..base }
}

fn hand_over(lab: &mut Lab, program: &'static str) -> Result<(), LabError> {
    serve_any(lab)?;
    lab.iptables(program, &format!("-t mangle -A PREROUTING -p tcp --dport {PORT} -j TPROXY --on-port 9999 --tproxy-mark 1"))
}
