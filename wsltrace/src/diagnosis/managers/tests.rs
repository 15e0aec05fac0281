//! What is to be typed for the rules of programs.

use super::firewalld::zone;
use crate::diagnosis::Obstacle;
use crate::evidence::{Backend, Owner, Rule};

fn mend(owner: Owner, table: &str, chain: &str, text: &str) -> Vec<String> {
    on_the_way(&rule(owner, table, chain, text)).mend()
}

fn on_the_way(rule: &Rule) -> Obstacle<'_> {
    Obstacle { rule, port: 8080, answer: false, v6: false, forward: false, leaves_by: None, server: None, loopback: false }
}

fn rule(owner: Owner, table: &str, chain: &str, text: &str) -> Rule {
    Rule {
        backend: Backend::IptablesNft,
        family: "ip".to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        handle: Some(7),
        number: None,
        text: Some(text.to_owned()),
        comment: None,
        verdict: "drop".to_owned(),
        owner,
        without_users_chain: false,
        at_chains_end: false,
    }
}

#[test]
fn bans_are_taken_back_by_whoever_made_them() {
    let of = |table, chain, text| mend(Owner::User, table, chain, text);
    assert!(of("filter", "f2b-sshd", "-s 172.28.16.1/32 -j REJECT").iter().any(|line| line.contains("set sshd unbanip")));
    assert!(of("f2b-table", "f2b-chain", "").iter().any(|line| line.contains("set JAIL unbanip")));
    assert!(of("crowdsec", "crowdsec-chain", "").iter().any(|line| line.contains("cscli decisions delete")));
    let kube = Rule {
        comment: Some("default/web has no endpoints".to_owned()),
        ..rule(Owner::User, "filter", "KUBE-SERVICES", "reject")
    };
    for found in [
        on_the_way(&kube).mend(),
        of("kube-proxy", "reject-chain", "reject"),
        of("filter", "KUBE-FIREWALL", "ct status dnat counter drop"),
        of("filter", "cali-tw-vK", "drop"),
        of("filter", "KUBE-EXTERNAL-SERVICES", "-m comment --comment \"default/web has no local endpoints\" -j DROP"),
    ] {
        assert!(matches!(&found[..], [what, look] if what.starts_with("# Kub") && look.starts_with("kubectl get ")), "{found:?}");
    }
    let service = of("filter", "KUBE-SERVICES", "-m comment --comment \"default/web has no endpoints\" -j REJECT");
    assert!(service.iter().any(|line| line.starts_with("kubectl get")) && !service.iter().any(|line| line.contains("-D")));
}

#[test]
fn networks_that_docker_keeps_apart_are_not_opened_to_each_other() {
    for chain in ["DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-INTERNAL"] {
        let found = mend(Owner::Docker, "filter", chain, "! -s 10.9.0.0/24 -o br0 -j DROP");
        assert!(found.iter().all(|line| line.starts_with('#') || line == "docker network ls"), "{found:?}");
    }
    assert!(mend(Owner::Docker, "filter", "FORWARD", "policy drop")[0].contains("-I DOCKER-USER -p tcp --dport 8080"));
}

#[test]
fn no_exception_goes_where_nothing_leads_to() {
    let policy = Rule { handle: None, without_users_chain: true, ..rule(Owner::Docker, "filter", "FORWARD", "policy drop") };
    let found = Obstacle { forward: true, server: "172.17.0.2".parse().ok(), ..on_the_way(&policy) }.mend();
    assert!(found.iter().any(|line| line == "iptables-nft -t filter -I FORWARD -d 172.17.0.2 -p tcp --dport 8080 -j ACCEPT"));
    assert!(found.last().is_some_and(|line| line.starts_with('#') && line.ends_with("service docker restart")), "{found:?}");
}

#[test]
fn of_networks_that_are_none_of_dockers_the_answers_are_let_through_too() {
    let policy = Rule { handle: None, ..rule(Owner::Docker, "filter", "FORWARD", "policy drop") };
    let by = |device| Obstacle { forward: true, leaves_by: Some(device), ..on_the_way(&policy) }.mend();
    assert_eq!([by("docker0").len(), by("br-0123456789ab").len()], [1, 1]);
    let found = by("podman0");
    assert!(found.len() == 2 && found[0].contains("-I DOCKER-USER -m conntrack --ctstate ESTABLISHED,RELATED"), "{found:?}");
}

#[test]
fn what_leaves_is_opened_outwards() {
    let to = |owner, chain, text: &str| {
        let rule = rule(owner, "filter", chain, text);
        Obstacle { server: "172.28.16.1".parse().ok(), ..on_the_way(&rule) }.mend()
    };
    assert_eq!(to(Owner::Ufw, "OUTPUT", "policy drop"), ["ufw allow out proto tcp to 172.28.16.1 port 8080"]);
    assert_eq!(to(Owner::Ufw, "ufw-user-output", "-j DROP")[0], "ufw insert 1 allow out proto tcp to 172.28.16.1 port 8080");
    let policy = to(Owner::Firewalld, "filter_OUT_policy_allow-host-ipv6", "drop").join("; ");
    assert!(policy.contains("--add-ingress-zone=HOST") && policy.contains("destination address=172.28.16.1 "), "{policy}");
    assert_eq!(to(Owner::Ufw, "INPUT", "policy drop"), ["ufw allow 8080/tcp"]);
}

#[test]
fn what_was_set_as_a_limit_is_one_and_rich_rules_go_by_their_priority() {
    let limit = mend(Owner::Ufw, "filter", "ufw-user-limit", "-A ufw-user-limit -j REJECT");
    assert_eq!(limit, ["ufw allow 8080/tcp"]);
    let rich = mend(Owner::Firewalld, "firewalld", "filter_IN_public_pre", "ip saddr 172.28.16.0/20 drop");
    assert!(rich.iter().any(|line| line == "firewall-cmd --zone=public --list-rich-rules"), "{rich:?}");
    assert!(!rich.iter().any(|line| line.contains("--add-")), "{rich:?}");
    let panic = mend(Owner::Firewalld, "firewalld_policy_drop", "raw_prerouting", "policy drop");
    assert_eq!(panic[1], "firewall-cmd --panic-off");
}

#[test]
fn what_docker_shields_is_published_and_not_opened() {
    let of = |text: &str| mend(Owner::Docker, "raw", "PREROUTING", text);
    for text in ["-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", "ip daddr 172.17.0.2 iifname != \"docker0\" counter drop"]
    {
        let found = of(text);
        assert!(found.iter().all(|line| line.starts_with('#') || line == "docker ps"), "{found:?}");
        assert!(found.iter().any(|line| line.contains("docker run -p 8080:8080")), "{found:?}");
    }
    // One for a port of 127.0.0.1 alone is in the way where Windows' localhost comes by a device of its own.
    let of_localhost = of("-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP");
    assert!(of_localhost[0].starts_with("iptables-nft -t raw -D PREROUTING -d 127.0.0.1/32"), "{of_localhost:?}");
}

#[test]
fn what_ufw_denies_on_one_interface_is_allowed_there() {
    let found = mend(Owner::Ufw, "filter", "ufw-user-input", "iifname \"eth0\" ip saddr 10.0.0.1 tcp dport 8080 counter drop");
    assert_eq!(found[0], "ufw insert 1 allow in on eth0 proto tcp from 10.0.0.1 to any port 8080");
    let found = mend(Owner::Ufw, "filter", "ufw-user-input", "tcp dport 8080 counter drop");
    assert_eq!(found[0], "ufw insert 1 allow 8080/tcp");
}

#[test]
fn what_a_rule_keeps_from_one_address_is_opened_for_that_address_alone() {
    let server = "172.17.0.2".parse().ok();
    let open = |text: &str, forward| {
        let rule = rule(Owner::User, "raw", "PREROUTING", text);
        Obstacle { forward, server, ..on_the_way(&rule) }.mend().pop().unwrap_or_default()
    };
    let narrow = "iptables-nft -t raw -I PREROUTING ! -i docker0 -d 172.17.0.2 -p tcp --dport 8080 -j ACCEPT";
    assert_eq!(open("ip daddr 172.17.0.2 iifname != \"docker0\" counter drop", false), narrow);
    assert_eq!(open("-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", false), narrow);
    // What is no more than this machine's address now stands for any.
    let by_eth0 = narrow.replace("! -i docker0", "-i eth0");
    assert_eq!(open("iifname \"eth0\" drop", false), by_eth0.replace("-d 172.17.0.2 ", ""));
    assert_eq!(open("iifname \"eth0\" drop", true), by_eth0);
}

#[test]
fn what_managers_ask_first_is_mended_first() {
    let ufw = |chain| mend(Owner::Ufw, "filter", chain, "-s 172.28.16.0/20 -j DROP");
    assert_eq!(ufw("ufw-user-input")[0], "ufw insert 1 allow 8080/tcp");
    assert!(ufw("ufw-before-input")[0].contains("/etc/ufw/before.rules"));
    let firewalld = |chain| mend(Owner::Firewalld, "firewalld", chain, "reject");
    assert!(firewalld("filter_IN_public_deny")[0].contains("--add-rich-rule='rule priority=\"-1\" port port=\"8080\""));
    assert_eq!(firewalld("filter_IN_public")[0], "firewall-cmd --zone=public --add-port=8080/tcp");
}

#[test]
fn zones_are_read_from_firewalld_chains() {
    assert_eq!(zone("filter_IN_public_deny"), Some("public"));
    assert_eq!(zone("filter_IN_docker"), Some("docker"));
    assert_eq!(zone("IN_home_allow"), Some("home"));
    assert_eq!(zone("filter_INPUT"), None);
}

#[test]
fn what_a_manager_may_have_left_behind_is_told_by_hand_as_well() {
    let rule = rule(Owner::Ufw, "filter", "ufw-user-input", "tcp dport 8080 counter drop");
    let lines = super::missing(&on_the_way(&rule));
    assert_eq!(lines[0], "ufw insert 1 allow 8080/tcp");
    assert!(lines.last().is_some_and(|line| line.starts_with("# sudo ") && !line.contains("ufw insert")), "{lines:?}");
}
