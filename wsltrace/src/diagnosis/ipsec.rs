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

/// The kernel discarded an answer which a policy wants protected.
pub(super) fn unprotected(case: &Case) -> Option<Finding> {
    let policy = case.evidence.ipsec_policy.as_ref()?;
    let summary = format!(
        "the listener answered, but its SYN-ACK was dropped: most likely an IPsec policy wants it protected, and no key for that is there: {}",
        name(policy)
    );
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
