//! The judge of packets that a rule gave to a transparent proxy, and that did not come to it for want of a way.

use super::Code;
use super::case::{Case, Finding};
use super::firewall::name;
use super::routes::ip;
use crate::evidence::Unled;

/// The finding, and that a rule wanted the packet for a transparent proxy; `None` for the code of another row.
pub(super) fn not_led(case: &Case, code: Code) -> Option<Finding> {
    let Unled { rule, free_table } = case.evidence.unled.as_ref()?;
    let of_this_row = if code == Code::Forwarded { "sent on" } else { "dropped by routing" };
    let text = rule.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    let summary = format!(
        "{of_this_row} as any packet for {}: {} gives it to a transparent proxy (TPROXY), but no rule of `ip rule` leads packets with its mark to this machine{text}",
        case.destination(),
        name(rule)
    );
    let ip = ip(case);
    let (mark, table) = (rule.proxy_mark().filter(|mark| *mark != 0), free_table);
    let remedy = match (mark, table) {
        (Some(mark), Some(table)) => vec![
            case.root(&format!("{ip} rule add fwmark {mark:#x} lookup {table}")),
            case.root(&format!("{ip} route add local default dev lo table {table}")),
        ],
        _ => vec![
            format!("# have marked packets taken for this machine's: {ip} rule add fwmark MARK lookup TABLE"),
            format!("# and: {ip} route add local default dev lo table TABLE"),
        ],
    };
    Some(Finding::inferred(summary).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::super::{Confidence::Inferred, tests::expect};
    use super::*;
    use crate::evidence::{Evidence, Lead, Rule};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, PREROUTING};

    fn unled(text: &str) -> Evidence {
        let rule = Rule { text: Some(text.to_owned()), verdict: "accept".to_owned(), ..samples::rule() };
        Evidence { unled: Some(Unled { rule, free_table: Some(100) }), lead: Some(Lead::default()), ..Evidence::default() }
    }

    #[test]
    fn a_proxy_without_its_way_is_told_whether_the_packet_died_or_went_on() {
        let lost = samples::journey(
            &PREROUTING,
            Outcome::Dropped,
            PREROUTING.last().copied(),
            Some(("IP_INADDRERRORS", "ip_error+0x94")),
        );
        let text = "tcp dport 8080 tproxy to :9999 meta mark set 0x00000001 accept";
        let found = expect(&lost, &unled(text), Code::NoRoute, Inferred);
        assert!(found.summary.contains("gives it to a transparent proxy"), "{}", found.summary);
        assert_eq!(found.remedy, ["sudo ip rule add fwmark 0x1 lookup 100", "sudo ip route add local default dev lo table 100"]);
        let by_iptables = "-A PREROUTING -p tcp --dport 8080 -j TPROXY --on-port 9999 --on-ip 0.0.0.0 --tproxy-mark 0x5/0xff";
        assert!(expect(&lost, &unled(by_iptables), Code::NoRoute, Inferred).remedy[0].contains("fwmark 0x5 "));
        let unmarked = expect(&lost, &unled("tcp dport 8080 tproxy to :9999 accept"), Code::NoRoute, Inferred);
        assert!(unmarked.remedy.iter().all(|line| line.starts_with('#')), "{:?}", unmarked.remedy);
        let mut on = samples::journey(
            &[Stage::TcIngress, Stage::Routing, Stage::Forward, Stage::TcEgress],
            Outcome::Forwarded,
            None,
            None,
        );
        on.interface = Some("eth0".into());
        assert!(expect(&on, &unled(text), Code::Forwarded, Inferred).summary.starts_with("sent on as any packet"));
    }
}
