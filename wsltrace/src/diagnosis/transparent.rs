//! The judge of packets that a rule gave to a transparent proxy, and that did not come to it for want of a way.

use super::Code;
use super::case::{Case, Finding};
use super::firewall::name;
use super::listener::who;
use super::routes::ip;
use crate::evidence::{PassedProxy, Unled};

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

/// What to say of a proxy to which a rule hands the port, and that did not take this connection, and what to do.
pub(super) fn past_a_proxy(case: &Case) -> Option<(String, Option<String>)> {
    let PassedProxy { rule, port, listener } = case.evidence.passed_proxy.as_ref()?;
    let handed = format!("; {} hands this port to a transparent proxy on port {port} (TPROXY)", name(rule));
    Some(match listener {
        Some(listener) => (
            format!("{handed}, but {} there is not transparent and gets nothing of it", who(listener)),
            Some(format!("# have what listens on port {port} set IP_TRANSPARENT on its socket, as transparent proxies do; or:")),
        ),
        None => (format!("{handed}, and no such proxy listens there"), Some(format!("# start the proxy on port {port}; or:"))),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        Confidence::{Inferred, Proved},
        tests::expect,
    };
    use super::*;
    use crate::evidence::{Evidence, Lead, Rule};
    use crate::journey::{Outcome, Stage};
    use crate::output::samples::{self, PREROUTING};

    fn unled(text: &str) -> Evidence {
        let rule = Rule { text: Some(text.to_owned()), verdict: "accept".to_owned(), ..samples::rule() };
        Evidence { unled: Some(Unled { rule, free_table: Some(100) }), lead: Some(Lead::default()), ..Evidence::default() }
    }

    #[test]
    fn a_proxy_that_is_not_transparent_is_told_where_nothing_listens_on_the_port_itself() {
        let refused = samples::journey(
            &samples::PREROUTING,
            Outcome::Refused,
            Some(Stage::SocketLookup),
            Some(("NO_SOCKET", "tcp_v4_rcv+0x91")),
        );
        let with = |listener| {
            let passed_proxy = Some(PassedProxy { rule: samples::rule(), port: 9999, listener });
            Evidence { passed_proxy, ..samples::with_listeners(Vec::new()) }
        };
        let found = expect(&refused, &with(Some(samples::listener("0.0.0.0"))), Code::NoListener, Proved);
        assert!(found.summary.contains("to a transparent proxy on port 9999 (TPROXY), but server (pid"), "{}", found.summary);
        assert!(found.remedy[0].contains("IP_TRANSPARENT"), "{:?}", found.remedy);
        let found = expect(&refused, &with(None), Code::NoListener, Proved);
        assert!(found.summary.contains("and no such proxy listens there") && found.remedy[0].contains("start the proxy"));
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
