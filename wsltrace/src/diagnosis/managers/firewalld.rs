//! Rules of firewalld.

use super::is_outgoing;
use crate::diagnosis::remedy::Obstacle;
use crate::escape::shell_word;
use crate::evidence::Owner;

/// How a rule is overruled that an open port would not be.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let Obstacle { rule, port, .. } = obstacle;
    // Its panic mode, and for a moment its start.
    if rule.table == "firewalld_policy_drop" {
        return Some(vec![
            "# firewalld drops everything (panic mode), or is just starting; where it stays so:".to_owned(),
            "firewall-cmd --panic-off".to_owned(),
        ]);
    }
    // What is denied is asked about before what is allowed; a priority below 0 comes before both.
    let zone_before = |end| rule.chain.split_once("_IN_").and_then(|(_, zone)| zone.strip_suffix(end));
    // Rich rules of a priority below 0 stand there, each before those of a higher one.
    if let (Owner::Firewalld, Some(zone)) = (rule.owner, zone_before("_pre")) {
        let zone = shell_word(zone);
        return Some(vec![
            "# a rich rule with a priority refuses; see which, and take it away:".to_owned(),
            format!("firewall-cmd --zone={zone} --list-rich-rules"),
            format!("# sudo firewall-cmd --permanent --zone={zone} --remove-rich-rule='RULE', then: sudo firewall-cmd --reload"),
        ]);
    }
    let zone = zone_before("_deny");
    if let (Owner::Firewalld, Some(zone)) = (rule.owner, zone) {
        let zone = shell_word(zone);
        let rich = format!("'rule priority=\"-1\" port port=\"{port}\" protocol=\"tcp\" accept'");
        return Some(vec![
            format!("firewall-cmd --zone={zone} --add-rich-rule={rich}"),
            format!("firewall-cmd --permanent --zone={zone} --add-rich-rule={rich}"),
        ]);
    }
    None
}

/// The commands that open the port, the one that lasts last.
pub(super) fn open(obstacle: &Obstacle<'_>) -> Vec<String> {
    // What is on its way through this machine, or leaves it, is none of the ports that a zone has open.
    if obstacle.forward {
        return policy(obstacle, "forward", "ANY");
    }
    if is_outgoing(obstacle) {
        return policy(obstacle, "out", "HOST");
    }
    let zone = zone(&obstacle.rule.chain).map(|zone| format!(" --zone={}", shell_word(zone))).unwrap_or_default();
    let add = |lasting: &str| format!("firewall-cmd{lasting}{zone} --add-port={}/tcp", obstacle.port);
    vec![add(""), add(" --permanent")]
}

/// firewalld's commands for what goes from one zone to any other.
fn policy(obstacle: &Obstacle<'_>, name: &str, from: &str) -> Vec<String> {
    let port = obstacle.port;
    let policy = format!("{name}-{port}");
    // Only to the one server: others may have been left closed on purpose.
    let allow = match obstacle.server.filter(|_| !obstacle.answer) {
        Some(server) => {
            let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
            format!("--add-rich-rule='rule family={family} destination address={server} port port={port} protocol=tcp accept'")
        }
        None => format!("--add-port={port}/tcp"),
    };
    let options = [
        format!("--permanent --new-policy={policy}"),
        format!("--permanent --policy={policy} --add-ingress-zone={from}"),
        format!("--permanent --policy={policy} --add-egress-zone=ANY"),
        format!("--permanent --policy={policy} {allow}"),
        "--reload".to_owned(),
    ];
    options.map(|options| format!("firewall-cmd {options}")).into()
}

/// The zone in the name of one of firewalld's chains, such as `filter_IN_public_deny`.
pub(super) fn zone(chain: &str) -> Option<&str> {
    let rest = chain
        .split_once("_IN_")
        .or_else(|| chain.split_once("_FWD_"))
        .map_or_else(|| chain.strip_prefix("IN_"), |(_, rest)| Some(rest))?;
    let zone = ["_pre", "_log", "_deny", "_allow", "_post"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    (!zone.is_empty() && !zone.starts_with("POLICIES") && !zone.starts_with("policy")).then_some(zone)
}
