//! A reject whose ICMP error the kernel does not send: to the client it is a drop.

use super::{Expect, Scenario, serve_any, template};
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage;
use crate::lab::mend::Mended;
use crate::lab::path::inbound;
use crate::lab::{PORT, Seen, Side};

pub(super) fn scenarios() -> Vec<Scenario> {
    let base =
        template("reject-suppressed", "nftables rejects, but the kernel's rate limit suppresses the ICMP error", "rate limits");
    vec![Scenario {
        tools: &["nft"],
        break_it: |lab| {
            serve_any(lab)?;
            // An hour between two errors: not even the first can be paid for.
            lab.wsl.set_sysctl("net.ipv4.icmp_ratelimit", "3600000")?;
            let chain = "type filter hook input priority filter; policy accept";
            lab.wsl.nft("inet", chain, &format!("tcp dport {PORT} reject with icmpx admin-prohibited"))
        },
        client: Seen::NoAnswer,
        mended: Some(Mended::Removed),
        witness: Some(("Icmp", "OutRateLimitHost")),
        expect: Expect {
            codes: &[Code::FirewallReject],
            firewall: Some((Backend::Nft, "input")),
            path: inbound(Stage::InputFilter),
            ..base.expect.dropped_by_netfilter(Stage::InputFilter, Side::Wsl)
        },
        ..base
    }]
}
