//! What a client is told by the ICMP error of a `reject`: the error numbers of Linux (`icmp_err_convert` and `tab_unreach`).

use crate::evidence::Rule;

/// The error that a Linux client's `connect` gives, when the rule tells which kind it sends.
pub(super) fn seen_by_client(rule: &Rule, v6: bool) -> Option<&'static str> {
    let text = rule.text.as_deref()?.to_ascii_lowercase();
    let mut words = text.split_whitespace().skip_while(|word| *word != "reject").skip(1);
    // Without the rule's own word nothing is known of it; nft's text of an iptables rule can be `xt target "REJECT"`.
    if !text.split_whitespace().any(|word| word == "reject") {
        return None;
    }
    let kind = words.find(|word| !matches!(*word, "with" | "--reject-with" | "icmp" | "icmpv6" | "icmpx" | "type"));
    let kind = kind.unwrap_or("port-unreachable");
    let kind = kind.strip_prefix("icmp6-").or_else(|| kind.strip_prefix("icmp-")).unwrap_or(kind);
    Some(match kind {
        "port-unreachable" => "connection refused",
        "net-unreachable" | "net-prohibited" | "no-route" => "network is unreachable",
        "prot-unreachable" | "proto-unreachable" => "protocol not available",
        "admin-prohibited" | "adm-prohibited" | "policy-fail" | "reject-route" if v6 => "permission denied",
        "host-unreachable" | "addr-unreachable" | "host-prohibited" | "admin-prohibited" => "no route to host",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn each_kind_of_reject_is_its_own_error() {
        let seen = |text: &str, v6| seen_by_client(&Rule { text: Some(text.to_owned()), ..samples::rule() }, v6);
        for (text, v4, v6) in [
            ("tcp dport 8080 reject", Some("connection refused"), Some("connection refused")),
            ("reject with icmpx admin-prohibited", Some("no route to host"), Some("permission denied")),
            ("reject with icmpx type no-route", Some("network is unreachable"), Some("network is unreachable")),
            ("reject with icmp host-prohibited", Some("no route to host"), Some("no route to host")),
            (
                "-A INPUT -j REJECT --reject-with icmp-proto-unreachable",
                Some("protocol not available"),
                Some("protocol not available"),
            ),
            ("-A INPUT -j REJECT --reject-with icmp6-adm-prohibited", None, Some("permission denied")),
            ("tcp dport 8080 drop", None, None),
            ("xt target \"REJECT\"", None, None),
        ] {
            assert_eq!((seen(text, false), seen(text, true)), (v4, v6), "{text}");
        }
    }
}
