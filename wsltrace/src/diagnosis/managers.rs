//! Rules that a program keeps in lists of its own: an exception beside them would not hold, or would let in more than this client.

use super::remedy::Obstacle;
use super::{scope, vpn};
use crate::escape::shell_word;
use crate::evidence::{Backend, Owner, Rule};

/// The commands of the program that made the rule, where only that program mends it.
pub(super) fn mend(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    by_ban(rule)
        .or_else(|| by_kubernetes(rule))
        .or_else(|| vpn::mend(obstacle))
        .or_else(|| by_docker(rule, obstacle.port))
        .or_else(|| by_ufw(obstacle))
        .or_else(|| by_firewalld(rule, obstacle.port))
}

/// What bans clients that have misbehaved.
fn by_ban(rule: &Rule) -> Option<Vec<String>> {
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

/// Docker's own walls: what they keep apart stays apart.
fn by_docker(rule: &Rule, port: u16) -> Option<Vec<String>> {
    // An exception would open the port of every container to every network, and the answers would still be stopped.
    if rule.is_wall_of_docker() && !rule.is_shield_of_docker() {
        return Some(vec![
            "# Docker keeps its networks apart, and internal ones from everybody; see which network the container is in:".to_owned(),
            "docker network ls".to_owned(),
            "# then connect it to one that the client is in, or to one that is not internal: sudo docker network connect NETWORK CONTAINER"
                .to_owned(),
        ]);
    }
    // Docker has no chain for exceptions there, and would drop behind it what comes past the ports that it publishes.
    if rule.is_shield_of_docker() {
        return Some(vec![
            "# Docker keeps other machines away from its containers' own addresses; see which ports are published:".to_owned(),
            "docker ps".to_owned(),
            format!(
                "# then publish this one where the container is started (docker run -p {port}:{port}), and ask for an address of this machine"
            ),
        ]);
    }
    None
}

fn by_ufw(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let rule = obstacle.rule;
    // The user's rules are asked in their order, and one that lets in comes behind.
    if rule.owner == Owner::Ufw
        && !obstacle.forward
        && rule.chain.contains("-user-")
        && !rule.is_limit()
        && rule.handle.or(rule.number.map(u64::from)).is_some()
    {
        return Some(vec![
            format!("ufw insert 1 {}", in_ufws_words(obstacle)),
            "# if ufw has that rule already, further down: take out the one that refuses, by its number here:".to_owned(),
            "ufw status numbered".to_owned(),
        ]);
    }
    if rule.owner == Owner::Ufw && rule.chain.contains("-before-") && rule.handle.or(rule.number.map(u64::from)).is_some() {
        let file = if obstacle.v6 { "before6.rules" } else { "before.rules" };
        return Some(vec![
            format!("# the rule stands in /etc/ufw/{file}, which no command of ufw changes: edit it, then:"),
            "ufw reload".to_owned(),
        ]);
    }
    None
}

fn by_firewalld(rule: &Rule, port: u16) -> Option<Vec<String>> {
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

/// Docker makes its rules when it is started, and never looks again.
const DOCKER_IS_CUT_OFF: &str = "# Docker's own rules are gone from FORWARD, as after `iptables -F` or the reload of another firewall: it makes them anew when it is restarted (containers stop meanwhile), and needs no exception then: sudo service docker restart";

/// The command by which the manager of a rule opens the port, most lasting last.
pub(super) fn open(obstacle: &Obstacle<'_>) -> Option<Vec<String>> {
    let Obstacle { rule, port, .. } = obstacle;
    match rule.owner {
        Owner::Ufw => Some(vec![format!("ufw {}", in_ufws_words(obstacle))]),
        // What is on its way through this machine, or leaves it, is none of the ports that a zone has open.
        Owner::Firewalld if obstacle.forward => Some(policy(obstacle, "forward", "ANY")),
        Owner::Firewalld if is_outgoing(obstacle) => Some(policy(obstacle, "out", "HOST")),
        Owner::Firewalld => {
            let zone = zone(&rule.chain).map(|zone| format!(" --zone={}", shell_word(zone))).unwrap_or_default();
            let add = |lasting: &str| format!("firewall-cmd{lasting}{zone} --add-port={port}/tcp");
            Some(vec![add(""), add(" --permanent")])
        }
        // An exception in its chain for the user's rules would not be met.
        Owner::Docker if rule.without_users_chain => {
            Some(obstacle.except().into_iter().chain([DOCKER_IS_CUT_OFF.to_owned()]).collect())
        }
        // That chain is asked in this table only.
        Owner::Docker if rule.backend != Backend::Nft && rule.table == "filter" => {
            let program = obstacle.program();
            // Every container meets that chain.
            let end = if obstacle.answer { "-s" } else { "-d" };
            let server = obstacle.behind().map(|server| format!(" {end} {server}")).unwrap_or_default();
            let allow = format!("{program} -I DOCKER-USER{server} -p tcp {} -j ACCEPT", obstacle.iptables_port());
            // Of its own networks Docker lets the answers pass itself.
            let answers = format!("{program} -I DOCKER-USER -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
            let foreign = obstacle.leaves_by.is_some_and(|device| device != "docker0" && !device.starts_with("br-"));
            Some(foreign.then_some(answers).into_iter().chain([allow]).collect())
        }
        _ => None,
    }
}

/// Whether the packets leave this machine, where they were made.
fn is_outgoing(obstacle: &Obstacle<'_>) -> bool {
    let chain = obstacle.rule.chain.as_str();
    !obstacle.forward && (chain == "OUTPUT" || ["-output", "_OUT_", "_OUTPUT"].iter().any(|part| chain.contains(part)))
}

/// What ufw is told to let through.
fn in_ufws_words(obstacle: &Obstacle<'_>) -> String {
    let port = obstacle.port;
    let server = || obstacle.server.map_or_else(|| "any".to_owned(), |server| server.to_string());
    match (obstacle.forward, is_outgoing(obstacle), obstacle.answer) {
        (true, _, false) => format!("route allow proto tcp to {} port {port}", server()),
        (true, _, true) => format!("route allow proto tcp from any port {port} to any"),
        (_, true, false) => format!("allow out proto tcp to {} port {port}", server()),
        (_, true, true) => format!("allow out proto tcp from any port {port} to any"),
        _ => match scope::plain(obstacle.rule) {
            [None, None] => format!("allow {port}/tcp"),
            [device, source] => {
                let device = device.map(|device| format!("in on {device} ")).unwrap_or_default();
                let source = source.map(|source| format!("from {source} ")).unwrap_or_default();
                format!("allow {device}proto tcp {source}to any port {port}")
            }
        },
    }
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
fn zone(chain: &str) -> Option<&str> {
    let rest = chain
        .split_once("_IN_")
        .or_else(|| chain.split_once("_FWD_"))
        .map_or_else(|| chain.strip_prefix("IN_"), |(_, rest)| Some(rest))?;
    let zone = ["_pre", "_log", "_deny", "_allow", "_post"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    (!zone.is_empty() && !zone.starts_with("POLICIES") && !zone.starts_with("policy")).then_some(zone)
}

/// What is to be looked at where Kubernetes made the rule: it makes its rules anew again and again, and an exception would pass what its
/// services and network policies say.
fn by_kubernetes(rule: &Rule) -> Option<Vec<String>> {
    let [text, comment] = [&rule.text, &rule.comment].map(|said| said.as_deref().unwrap_or_default());
    let says = |what: &str| text.contains(what) || comment.contains(what);
    let (what, look) = if says("has no endpoints") || rule.table == "kube-proxy" && rule.chain.contains("reject") {
        ("refuses for a service that no pod is ready for: start its pods, and see that the selector fits", SERVICES)
    } else if says("has no local endpoints") {
        (
            "drops for a service that has no pod on this machine (externalTrafficPolicy: Local): start one here, or set it to Cluster",
            SERVICES,
        )
    } else if ["KUBE-POD-FW", "KUBE-NWPLCY", "cali-", "CILIUM_"].iter().any(|chain| rule.chain.starts_with(chain)) {
        (
            "lets through what its network policies allow, and this is none of it",
            "kubectl get networkpolicies,pods -o wide --all-namespaces",
        )
    } else if rule.chain == "KUBE-FIREWALL" || rule.table == "kube-proxy" {
        ("guards this machine's own addresses, or drops what it marked; ask for what a service publishes", SERVICES)
    } else {
        return None;
    };
    Some(vec![format!("# Kubernetes {what}:"), look.to_owned()])
}

/// The services, and who serves them.
const SERVICES: &str = "kubectl get pods,services,endpointslices --all-namespaces";

/// The commands where the program is not here that gives its rules such names: another distro has it, or they were left behind.
pub(super) fn missing(obstacle: &Obstacle<'_>) -> Vec<String> {
    let program = obstacle.rule.owner.program().unwrap_or_default();
    let delete = if obstacle.is_its_own() { obstacle.delete() } else { None };
    let by_hand = delete.map_or_else(|| obstacle.except(), |delete| vec![delete]);
    let head =
        format!("# that is for the distro that has {program}; where none has, it left its rules behind, and by hand it is:");
    obstacle.mend().into_iter().chain([head]).chain(by_hand.into_iter().map(|line| format!("# sudo {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::zone;
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
            assert!(
                matches!(&found[..], [what, look] if what.starts_with("# Kub") && look.starts_with("kubectl get ")),
                "{found:?}"
            );
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
        for text in
            ["-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP", "ip daddr 172.17.0.2 iifname != \"docker0\" counter drop"]
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
        let found =
            mend(Owner::Ufw, "filter", "ufw-user-input", "iifname \"eth0\" ip saddr 10.0.0.1 tcp dport 8080 counter drop");
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
}
