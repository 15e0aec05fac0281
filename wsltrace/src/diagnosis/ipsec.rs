//! What is said of policies of `IPsec` that refuse, and the commands against them.

use super::case::{Case, Finding};
use crate::{escape::escape, evidence::IpsecPolicy};

/// The kernel said that a policy refused the packet; which one, the list of policies tells.
pub(super) fn refused(case: &Case) -> Finding {
    if case.journey.is_unconfirmed() {
        return Finding::unconfirmed("an IPsec policy").remedy(case.where_to_type()).remedy(mend(case));
    }
    let place = case.place();
    let summary = match &case.evidence.ipsec_policy {
        Some(policy) => {
            let why = if policy.blocks { "" } else { ", for it came unprotected" };
            format!("dropped in {place}: an IPsec policy refused it{why}; by the policies as they are now it is {}", name(policy))
        }
        None => format!("dropped in {place}: an IPsec policy refused it"),
    };
    Finding::proved(summary).remedy(case.where_to_type()).remedy(mend(case))
}

/// IPv6 gives no reason where it would send the packet on.
pub(super) fn refused_without_reason(case: &Case) -> Option<Finding> {
    let policy = case.evidence.ipsec_policy.as_ref()?;
    let forwards = case.sysctl("net.ipv6.conf.all.forwarding").is_some_and(|value| value != "0");
    if case.symbol() != Some("ip6_forward") || !forwards {
        return None;
    }
    let summary = format!("dropped in {}: most likely an IPsec policy refused it: {}", case.place(), name(policy));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend(case)))
}

/// The kernel discarded an answer which a policy blocks, or wants protected.
pub(super) fn unprotected(case: &Case) -> Option<Finding> {
    let policy = case.evidence.ipsec_policy.as_ref()?;
    let why = if policy.blocks { "refuses it" } else { "wants it protected, and no key for that is there" };
    let summary =
        format!("the listener answered, but its SYN-ACK was dropped: most likely an IPsec policy {why}: {}", name(policy));
    Some(Finding::inferred(summary).remedy(case.where_to_type()).remedy(mend(case)))
}

/// The policy in the words of `ip xfrm policy`.
pub(super) fn name(policy: &IpsecPolicy) -> String {
    let does = if policy.blocks { "action block" } else { "tmpl" };
    format!("`{} dir {} {does}`", escape(&policy.selector), policy.direction)
}

/// Takes the policy away where it is known, and otherwise shows them all.
pub(super) fn mend(case: &Case) -> Vec<String> {
    let Some(policy) = &case.evidence.ipsec_policy else { return vec![case.root("ip xfrm policy")] };
    let delete = case.root(&format!("ip xfrm policy delete {} dir {}", policy.selector, policy.direction));
    vec!["# connect or stop the VPN that has set this policy; if none is to have it:".to_owned(), delete]
}

#[cfg(test)]
mod tests {
    use super::{Case, unprotected};
    use crate::diagnosis::Confidence::{Inferred, Proved};
    use crate::diagnosis::{Code, diagnose, routing_tests::dropped, tests::expect};
    use crate::evidence::{Evidence, IpsecPolicy};

    #[test]
    fn a_policy_of_ipsec_is_named_where_it_refuses() {
        let policy = IpsecPolicy { selector: "src 10.0.0.1/32 dst ::/0".into(), direction: "fwd".into(), blocks: true };
        let named = Evidence { ipsec_policy: Some(policy), ..Evidence::default() };
        let by_reason = dropped("XFRM_POLICY", "ip_forward+0x2c0");
        assert_eq!(expect(&by_reason, &Evidence::default(), Code::SocketPolicy, Proved).remedy, ["sudo ip xfrm policy"]);
        let found = expect(&by_reason, &named, Code::SocketPolicy, Proved);
        assert_eq!(found.remedy[1], "sudo ip xfrm policy delete src 10.0.0.1/32 dst ::/0 dir fwd");
        let without = dropped("NOT_SPECIFIED", "ip6_forward+0x689");
        let setting = |value: &str| vec![("net.ipv6.conf.all.forwarding".to_owned(), value.to_owned())];
        let forwards = Evidence { sysctls: setting("1"), ..named.clone() };
        expect(&without, &forwards, Code::SocketPolicy, Inferred);
        let off = diagnose(&without, &Evidence { sysctls: setting("0"), ..named });
        assert_ne!(off.code, Code::SocketPolicy, "forwarding is asked for first");
    }

    #[test]
    fn an_answer_is_blocked_or_has_no_key() {
        let (journey, policy) = (dropped("NOT_SPECIFIED", "ip_forward+0x2c0"), |blocks| IpsecPolicy {
            selector: "src 0.0.0.0/0 dst 10.0.0.1/32".into(),
            direction: "out".into(),
            blocks,
        });
        let told = |blocks| {
            let evidence = Evidence { ipsec_policy: Some(policy(blocks)), ..Evidence::default() };
            unprotected(&Case { journey: &journey, evidence: &evidence }).map(|finding| finding.summary).unwrap_or_default()
        };
        assert!(told(true).contains("an IPsec policy refuses it: `src") && !told(true).contains("key"), "{}", told(true));
        assert!(told(false).contains("wants it protected, and no key for that is there: `src"), "{}", told(false));
    }
}
