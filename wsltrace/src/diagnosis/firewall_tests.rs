//! Judgements on what firewalls did, on hand-made journeys.

use super::{
    Code, Confidence, diagnose,
    tests::{dropped, expect},
};
use crate::{
    evidence::{Backend, Evidence, Refusing, Rule},
    journey::{Family, Outcome, Stage},
    output::samples::{self, PREROUTING, after_prerouting, ip, journey, listener, to_socket, with_listeners},
};

use Confidence::{Inferred, Proved};

#[test]
fn what_refuses_the_way_back_that_a_rule_asks_for_is_taken_away() {
    let killed = dropped(&PREROUTING, "NETFILTER_DROP", "nft_do_chain+0x3e8");
    let rule = crate::evidence::Rule { text: Some("fib saddr . iif oif missing drop".into()), ..samples::rule() };
    let no_way = Evidence { rule: Some(rule), route_back: Some(false), ..Evidence::default() };
    let found = expect(&killed, &no_way, Code::FirewallDrop, Proved);
    assert!(found.remedy[0].starts_with("sudo ip route add 172.28.16.1 dev eth0"), "{:?}", found.remedy);
    let route = Refusing {
        kind: "blackhole".into(),
        destination: (ip("172.28.16.1"), 32),
        source: None,
        table: 254,
        marked: false,
        nexthop: None,
    };
    let found = expect(&killed, &Evidence { refusing_route: Some(route), ..no_way }, Code::FirewallDrop, Proved);
    assert!(
        found.summary.contains("the same interface, and the route \"blackhole 172.28.16.1/32\" refuses"),
        "{}",
        found.summary
    );
    assert_eq!(found.remedy, ["sudo ip route del blackhole 172.28.16.1/32"]);
}

#[test]
fn a_firewall_is_proved_by_its_drop_but_not_where_conntrack_acts() {
    let none = Evidence::default();
    let filter = after_prerouting(&[Stage::Input, Stage::InputFilter]);
    let found = expect(&dropped(&filter, "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
    assert!(found.summary.contains("which rule is not known"));
    assert_eq!(found.remedy, ["sudo nft -a list ruleset"]);
    let suspects = vec![samples::rule(), Rule { handle: Some(9), ..samples::rule() }];
    let one_of_two = Evidence { suspects, ..Evidence::default() };
    let found = expect(&dropped(&filter, "NETFILTER_DROP", "nft_do_chain+0x3e8"), &one_of_two, Code::FirewallDrop, Inferred);
    assert!(found.summary.contains("by the rules as they are now it is ") && found.summary.contains(" or rule handle 9 of "));
    assert_eq!(found.remedy[..2], ["sudo nft -a list ruleset", "# one of these is enough; try again after each:"]);
    assert!(found.remedy[2..].iter().all(|line| line.starts_with("# sudo nft ")), "{:?}", found.remedy);
    expect(&dropped(&filter, "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Proved);
    expect(&dropped(&filter, "NOT_SPECIFIED", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Inferred);
    expect(&dropped(&PREROUTING[..4], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::ConntrackDrop, Inferred);
    expect(&dropped(&PREROUTING[..4], "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
    // Of the bridge's and the device's hooks the kernel before 6.7 tells no more than that a hook refused the packet.
    let found = expect(&dropped(&[Stage::TcIngress], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Proved);
    assert!(
        found
            .summary
            .contains("at the very beginning of PREROUTING, on eth0; ebtables or a BPF program did it (before Linux 6.7"),
        "{}",
        found.summary
    );
    let at_input = after_prerouting(&[Stage::Input]);
    expect(&dropped(&at_input, "NETFILTER_DROP", "nf_hook_slow+0xa1"), &none, Code::FirewallDrop, Inferred);
    let legacy = Evidence { backend: Some(Backend::IptablesLegacy), ..Evidence::default() };
    let found = expect(&dropped(&PREROUTING[..3], "NETFILTER_DROP", "nf_hook_slow+0xa1"), &legacy, Code::FirewallDrop, Proved);
    assert_eq!(found.remedy, ["sudo iptables-legacy-save -c -t raw"]);
    expect(&dropped(&[Stage::TcIngress], "NETFILTER_DROP", "nft_do_chain+0x3e8"), &none, Code::FirewallDrop, Proved);
}

#[test]
fn a_limit_is_told_as_one_and_what_is_dropped_at_a_limited_rate_is_not() {
    let journey = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    let found = |text: &str| {
        let rule = Rule { text: Some(text.into()), ..samples::rule() };
        expect(&journey, &Evidence { rule: Some(rule), ..Evidence::default() }, Code::FirewallDrop, Proved)
    };
    for limit in [
        "tcp dport 8080 ct count over 4 drop",
        "add @came { ip saddr limit rate over 1/minute } drop",
        "tcp dport 8080 quota over 10 mbytes drop",
        "-A INPUT -p tcp --dport 8080 -m connlimit --connlimit-above 4 --connlimit-mask 32 --connlimit-saddr -j DROP",
        "tcp dport 8080 xt match hashlimit counter drop",
        // Since nft 1.1.
        "tcp dport 8080 xt match \"connlimit\" counter drop",
    ] {
        let found = found(limit);
        assert!(found.summary.contains("it is a limit"), "{}", found.summary);
        assert!(found.remedy[0].starts_with("# wait") && found.remedy.len() == 2, "{:?}", found.remedy);
    }
    for asks in [
        "-A INPUT -m recent --update --seconds 60 --hitcount 3 --name x -j DROP",
        "xt match recent counter drop",
        "xt match \"recent\" counter drop",
    ] {
        assert!(found(asks).summary.contains("came before"), "{asks}");
    }
    for chance in
        ["-A INPUT -m statistic --mode nth --every 2 --packet 0 -j DROP", "numgen inc mod 2 0 drop", "meta random < 9 drop"]
    {
        assert!(found(chance).summary.contains("leaves others alike"), "{chance}");
    }
    for other in [
        "limit rate 1/second drop",
        "-A INPUT -m recent --set --name x -j DROP",
        "counter name \"quota\" drop",
        "counter drop comment \"no ct count over 4\"",
    ] {
        let found = found(other);
        assert!(!found.summary.contains("may pass") && found.remedy.len() == 1, "{}", found.summary);
    }
}

#[test]
fn a_reject_whose_answer_was_suppressed_is_told_by_its_rule() {
    let stages = after_prerouting(&[Stage::InputFilter]);
    let mut rule = samples::rule();
    rule.verdict = "reject".into();
    let evidence = Evidence { rule: Some(rule), ..Evidence::default() };
    expect(&dropped(&stages, "NETFILTER_DROP", "nft_do_chain+0x3e8"), &evidence, Code::FirewallReject, Proved);
    expect(&samples::other(Outcome::Rejected).journey, &Evidence::default(), Code::FirewallReject, Proved);
}

#[test]
fn a_reject_whose_answer_came_back_to_a_client_here_did_leave() {
    let mut rule = samples::rule();
    rule.verdict = "reject".into();
    let evidence = Evidence { rule: Some(rule), icmp_suppressed: Some(0), ..Evidence::default() };
    let answer = [Stage::Output, Stage::TcEgress, Stage::Input];
    let mut journey =
        dropped(&after_prerouting(&[&[Stage::InputFilter], &answer[..]].concat()), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    journey.died_at = Some(Stage::InputFilter);
    journey.answer = Some(journey.stages.len() - answer.len());
    let found = expect(&journey, &evidence, Code::FirewallReject, Proved);
    assert!(found.summary.contains("this rule or another drops that, too"), "{}", found.summary);
    journey.stages.pop();
    let found = expect(&journey, &evidence, Code::FirewallReject, Proved);
    assert!(found.summary.contains("its answer did not leave"), "{}", found.summary);
}

#[test]
fn a_reject_whose_answer_was_suppressed_is_inferred_from_the_counter() {
    let journey = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    let held_back = Evidence { icmp_suppressed: Some(2), dropped_by_netfilter: 2, ..Evidence::default() };
    expect(&journey, &held_back, Code::FirewallReject, Inferred);
    let some = Evidence { icmp_suppressed: Some(1), ..held_back.clone() };
    expect(&journey, &some, Code::FirewallDrop, Proved);
    let by_a_drop = Evidence { rule: Some(samples::rule()), ..held_back };
    expect(&journey, &by_a_drop, Code::FirewallDrop, Proved);
}

#[test]
fn silence_in_a_hook_is_a_queue_and_elsewhere_unexplained() {
    let mut held = samples::other(Outcome::Unfinished).journey;
    held.stages.truncate(9);
    expect(&held, &Evidence::default(), Code::QueuedToUserspace, Inferred);
    held.stages = journey(&to_socket(&[]), Outcome::Unfinished, None, None).stages;
    expect(&held, &Evidence::default(), Code::UnexplainedDrop, Inferred);
}

#[test]
fn ipv6_gets_its_own_tools() {
    let mut j = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nf_hook_slow+0x1");
    j.flow.family = Family::Ipv6;
    (j.flow.source, j.flow.destination) = (ip("fe80::1"), ip("fe80::2"));
    let found = expect(&j, &Evidence::default(), Code::FirewallDrop, Proved);
    assert_eq!(found.remedy[0], "sudo ip6tables-legacy-save -c -t filter");
}

#[test]
fn a_rule_that_was_named_for_a_twin_proves_nothing() {
    let report = samples::firewall(Some(samples::rule()));
    let proved = diagnose(&report.journey, &report.evidence);
    let evidence = Evidence { named_by: crate::evidence::NamedBy::Twin, ..Evidence::clone(&report.evidence) };
    let inferred = diagnose(&report.journey, &evidence);
    assert_eq!((proved.code, proved.confidence), (Code::FirewallDrop, Confidence::Proved));
    assert_eq!((inferred.code, inferred.confidence), (Code::FirewallDrop, Confidence::Inferred));
    assert!(inferred.summary.contains("another attempt"), "{}", inferred.summary);
}

#[test]
fn a_policy_is_met_at_its_chain_s_end_where_everything_comes_there() {
    let journey = samples::firewall(None).journey;
    let mend = |rule: Rule| {
        let evidence = Evidence { rule: Some(rule), ..Evidence::default() };
        expect(&journey, &evidence, Code::FirewallDrop, Proved).remedy.concat()
    };
    let policy = Rule { handle: None, text: Some("policy drop".into()), at_chains_end: true, ..samples::rule() };
    assert_eq!(mend(policy.clone()), "sudo iptables-nft -t filter -A INPUT -p tcp --dport 8080 -j ACCEPT");
    let nft = Rule { backend: Backend::Nft, ..policy.clone() };
    assert_eq!(mend(nft.clone()), "sudo nft add rule ip filter INPUT tcp dport 8080 accept");
    assert_eq!(mend(Rule { at_chains_end: false, ..nft }), "sudo nft insert rule ip filter INPUT tcp dport 8080 accept");
    let returns = Rule { at_chains_end: false, ..policy };
    assert_eq!(mend(returns), "sudo iptables-nft -t filter -I INPUT -p tcp --dport 8080 -j ACCEPT");
}

#[test]
fn a_confirmation_that_a_firewall_dropped_is_no_healthy_connection() {
    let mut half = samples::healthy().journey;
    half.facts.established = false;
    half.reason = Some("NETFILTER_DROP".into());
    half.location = Some("nft_do_chain+0x1".into());
    for acknowledged in [true, false] {
        half.facts.acknowledged = acknowledged;
        half.facts.syn_ack_again = !acknowledged;
        // A rule that is not known may as well reject.
        expect(&half, &with_listeners(vec![listener("0.0.0.0")]), Code::FirewallDrop, Inferred);
        let known = Evidence { rule: Some(samples::rule()), ..with_listeners(Vec::new()) };
        assert!(expect(&half, &known, Code::FirewallDrop, Inferred).summary.contains("by the rules as they are now"));
    }
    // There connection tracking drops as well.
    half.location = Some("nf_hook_slow+0x1".into());
    expect(&half, &with_listeners(vec![listener("0.0.0.0")]), Code::FirewallDrop, Inferred);
}
