//! What bans clients that have misbehaved.

use crate::diagnosis::remedy::Obstacle;

/// How an address is let in again.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    let text = rule.text.as_deref().unwrap_or_default();
    if let Some(jail) = rule.chain.strip_prefix("f2b-") {
        // nftables' own action has one chain for all jails.
        let jail = if rule.table == "f2b-table" { "JAIL" } else { jail };
        return Some(vec![
            "# fail2ban has banned the client; its jails, and how to let an address in again:".to_owned(),
            "fail2ban-client status".to_owned(),
            format!("# sudo fail2ban-client set {jail} unbanip ADDRESS"),
        ]);
    }
    if rule.table.starts_with("crowdsec") || text.contains("crowdsec-blacklists") {
        return Some(vec![
            "# crowdsec has banned the client; its decisions, and how to take one back:".to_owned(),
            "cscli decisions list".to_owned(),
            "# sudo cscli decisions delete --ip ADDRESS".to_owned(),
        ]);
    }
    None
}
