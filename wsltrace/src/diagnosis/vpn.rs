//! Rules of programs that keep a VPN's kill switch, or a network of their own: they make them anew when they connect, so what is typed beside
//! them does not last. What their own commands do is from public documentation and sources (mullvadvpn-app, nordvpn-linux, tailscale); none
//! was run.

use super::remedy::Obstacle;

/// The commands of the program that made the rule, and the plain ones, which last until it makes its rules anew.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    let is_wall = rule.handle.is_none() && rule.number.is_none() || rule.verdict == "reject";
    if rule.family == "inet" && rule.table == "mullvad" && is_wall {
        let lan = "# Mullvad's app made that rule; this has it let in and out what is of a local network (10/8, 172.16/12, 192.168/16, fd00::/8, ...):";
        return Some([lan, "mullvad lan set allow"].map(str::to_owned).into_iter().chain(by_hand(obstacle)).collect());
    }
    let by_nordvpn = rule.table == "nordvpn" && rule.family == "inet" || rule.comment.as_deref() == Some("nordvpn");
    // What passes through this machine is not looked up in its list of ports.
    if by_nordvpn && is_wall && !obstacle.forward {
        let head = "# NordVPN's program made that rule; this has it let the port in, past the VPN:".to_owned();
        let allow = format!("nordvpn allowlist add port {} protocol TCP", obstacle.port);
        return Some([head, allow].into_iter().chain(by_hand(obstacle)).collect());
    }
    if rule.chain == "ts-input" {
        let why = "# Tailscale takes 100.64.0.0/10 for its own network, and lets such addresses in by its own interface only; it makes the rule anew when it starts:";
        return Some([why.to_owned()].into_iter().chain(obstacle.except()).collect());
    }
    None
}

fn by_hand(obstacle: &Obstacle<'_>) -> Vec<String> {
    let head = "# where its program is not at hand, and until it makes its rules anew:".to_owned();
    [head].into_iter().chain(obstacle.except().into_iter().map(|line| format!("# sudo {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Obstacle;
    use crate::evidence::{Backend, Rule};
    use crate::output::samples;

    fn mend(rule: &Rule) -> Vec<String> {
        Obstacle { rule, port: 8080, answer: false, v6: false, forward: false, leaves_by: None, server: None, loopback: false }
            .mend()
    }

    fn policy(table: &str) -> Rule {
        let rule =
            Rule { backend: Backend::Nft, family: "inet".into(), table: table.into(), chain: "input".into(), ..samples::rule() };
        Rule { handle: None, comment: None, text: Some("policy drop".into()), at_chains_end: true, ..rule }
    }

    #[test]
    fn who_keeps_a_kill_switch_is_asked_first() {
        let mullvad = mend(&policy("mullvad"));
        assert_eq!(mullvad[1], "mullvad lan set allow");
        assert_eq!(mullvad[3], "# sudo nft add rule inet mullvad input tcp dport 8080 accept");
        let nordvpn = mend(&policy("nordvpn"));
        assert_eq!(nordvpn[1], "nordvpn allowlist add port 8080 protocol TCP");
        let passing = policy("nordvpn");
        let passing = Obstacle {
            rule: &passing,
            port: 80,
            answer: false,
            v6: false,
            forward: true,
            leaves_by: None,
            server: None,
            loopback: false,
        };
        assert!(passing.mend().iter().all(|line| !line.contains("allowlist")));
        // What guards the tunnel's own address against the local network stays shut whatever that is allowed.
        let guard = Rule { handle: Some(9), text: Some("ip daddr 10.64.0.2 drop".into()), ..policy("mullvad") };
        assert!(mend(&guard).iter().all(|line| !line.contains("mullvad lan")));
    }

    #[test]
    fn tailscale_s_network_is_told_with_a_narrow_exception() {
        let text = Some("iifname != \"tailscale0\" ip saddr 100.64.0.0/10 counter drop".into());
        let found = mend(&Rule { chain: "ts-input".into(), text, comment: None, ..samples::rule() });
        assert!(found[0].contains("Tailscale"), "{found:?}");
        assert_eq!(found[1], "iptables-nft -t filter -I ts-input ! -i tailscale0 -s 100.64.0.0/10 -p tcp --dport 8080 -j ACCEPT");
    }
}
