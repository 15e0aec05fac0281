//! A neighbour that is there, in a namespace that is seen, and did not answer who asked for its hardware address.

use std::net::IpAddr;

use super::case::{Case, Finding};
use super::firewall::name;
use super::remedy::allow_neighbours;
use crate::escape::{escape, shell_word};
use crate::evidence::{Astray, Deaf, Deafness};
use crate::journey::Outcome;

/// What a packet waited for, and why that did not come.
pub(super) fn deaf(case: &Case, neighbour: IpAddr, there: &Deaf) -> Finding {
    let Deaf { netns, entrance, device, why } = there;
    let of_answer = case.journey.outcome == Outcome::AnswerDropped || case.journey.facts.syn_ack;
    let what = if of_answer { "the answer" } else { "the packet" };
    let search = if neighbour.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let vain = format!("{what} waited for the hardware address of {neighbour} in vain");
    let (shown, word) = (escape(device), shell_word(device));
    let there = format!("network namespace {netns}, which has that address,");
    let (summary, commands) = match why {
        Deafness::Drops { rule, certain } => {
            let likely = if *certain { "" } else { "most likely " };
            let by = name(rule);
            let said = format!("{vain}: {likely}{by} in {there} drops the question for it, or its answer ({search})");
            (said, vec![allow_neighbours(rule, neighbour.is_ipv6())])
        }
        Deafness::SwitchedOff => {
            (format!("{vain}: the interface {shown} of {there} is switched off"), vec![format!("ip link set dev {word} up")])
        }
        Deafness::NoArp => (
            format!("{vain}: the interface {shown} of {there} answers nobody who asks for its hardware address (NOARP)"),
            vec![format!("ip link set dev {word} arp on")],
        ),
        Deafness::Ignores { settings } => {
            let set: Vec<String> =
                settings.iter().map(|(name, value)| format!("{} is {}", escape(name), escape(value))).collect();
            let said = format!("{vain}: {there} answers nobody who asks {shown} for it ({})", set.join(", "));
            (said, settings.iter().map(|(name, _)| format!("sysctl -w {}", shell_word(&format!("{name}=0")))).collect())
        }
        Deafness::Astray { missing: Astray::NoRule, .. } => (
            format!(
                "{vain}: {there} answers nobody who asks for it, because no rule of `ip rule` leads such packets to the table `local`, where that stands"
            ),
            vec!["ip rule add pref 0 lookup local".to_owned()],
        ),
        Deafness::Astray { missing: Astray::NoVrfRule, .. } => (
            format!(
                "{vain}: {there} answers nobody who asks for it, because the rule of `ip rule` is missing that leads what comes by VRFs to their tables (l3mdev)"
            ),
            vec!["ip rule add pref 1000 l3mdev".to_owned()],
        ),
        Deafness::Astray { missing: Astray::NoRoute, device } => (
            format!("{vain}: {there} answers nobody who asks for it, because the table `local` does not have it"),
            vec![format!("ip route add local {neighbour} dev {} table local", shell_word(device))],
        ),
        Deafness::Unknown { undecided } => {
            let rules: Vec<String> = undecided.iter().map(|place| escape(place)).collect();
            let rules = if rules.is_empty() {
                String::new()
            } else {
                format!("; rules decide about questions for hardware addresses by what is not known here ({})", rules.join(", "))
            };
            let said = format!("{vain}: {there} did not answer by its interface {shown} ({search}){rules}");
            (said, vec![format!("ip -s -s link show dev {word}")])
        }
    };
    let enter = entrance.as_ref().map_or_else(|| "sudo".to_owned(), |entrance| format!("sudo {entrance}"));
    let where_to_type =
        format!("# in the network namespace with inode {netns} (lsns -t net shows its processes; enter it with nsenter -n):");
    let where_to_type = entrance.is_none().then_some(where_to_type);
    let here = matches!(why, Deafness::Unknown { undecided } if !undecided.is_empty());
    let look = here.then(|| "sudo nft -a list ruleset".to_owned());
    let commands = commands.into_iter().map(|command| format!("{enter} {command}"));
    let routes = "# its routes went when it was switched off: restarting the container (docker restart) brings both back";
    let routes = (*why == Deafness::SwitchedOff).then(|| routes.to_owned());
    Finding::inferred(summary).remedy(where_to_type).remedy(commands).remedy(look).remedy(routes)
}

#[cfg(test)]
mod tests {
    use crate::diagnosis::{
        Code,
        Confidence::{Inferred, Proved},
        Diagnosis,
        tests::{dropped, expect},
    };
    use crate::evidence::{Astray, Backend, Deaf, Deafness, Evidence, Rule, Unheard};
    use crate::journey::{Journey, Stage};
    use crate::output::samples::{self, CONTAINER};

    fn waited() -> Journey {
        dropped(&[Stage::TcIngress, Stage::Neighbour], "NEIGH_FAILED", "arp_error_report+0x1")
    }

    fn found(entrance: Option<&str>, why: Deafness) -> Diagnosis {
        let there = Deaf { netns: CONTAINER, entrance: entrance.map(str::to_owned), device: "eth0".to_owned(), why };
        expect(&waited(), &Evidence { deaf: Some(there), ..Evidence::default() }, Code::NoNeighbour, Inferred)
    }

    fn of(family: &str) -> Rule {
        Rule { backend: Backend::Nft, family: family.into(), table: "f".into(), chain: "i".into(), ..samples::rule() }
    }

    #[test]
    fn a_rule_of_the_neighbours_own_is_named_and_mended_there() {
        expect(&waited(), &Evidence::default(), Code::NoNeighbour, Proved);
        let drops = |certain| Deafness::Drops { rule: of("arp"), certain };
        let told = found(Some("nsenter -t 412 -n"), drops(true));
        assert!(told.summary.contains("of arp f i in network namespace") && told.summary.ends_with("(ARP)"), "{}", told.summary);
        assert_eq!(told.remedy, ["sudo nsenter -t 412 -n nft insert rule arp f i accept"]);
        assert!(!told.summary.contains("most likely"), "{}", told.summary);
        assert!(found(None, drops(false)).summary.contains("in vain: most likely rule handle 4"));
        let unknown = found(None, drops(true));
        assert!(unknown.remedy[0].starts_with("# in the network namespace with inode"), "{:?}", unknown.remedy);
    }

    #[test]
    fn settings_and_the_interface_of_the_neighbour_are_told() {
        let there = Some("nsenter -t 412 -n");
        let settings = vec![("net.ipv4.conf.all.arp_ignore".to_owned(), "8".to_owned())];
        let told = found(there, Deafness::Ignores { settings });
        assert!(
            told.summary.ends_with("answers nobody who asks eth0 for it (net.ipv4.conf.all.arp_ignore is 8)"),
            "{}",
            told.summary
        );
        assert_eq!(told.remedy, ["sudo nsenter -t 412 -n sysctl -w net.ipv4.conf.all.arp_ignore=0"]);
        let told = found(there, Deafness::NoArp);
        assert_eq!(told.remedy, ["sudo nsenter -t 412 -n ip link set dev eth0 arp on"]);
        let told = found(there, Deafness::SwitchedOff);
        assert!(told.summary.ends_with("which has that address, is switched off"), "{}", told.summary);
        assert_eq!(told.remedy[0], "sudo nsenter -t 412 -n ip link set dev eth0 up");
    }

    #[test]
    fn a_neighbour_whose_routing_does_not_know_its_address_is_told_so() {
        let of = |missing| found(Some("nsenter -t 412 -n"), Deafness::Astray { missing, device: "docker0".to_owned() });
        let told = of(Astray::NoRule);
        assert!(told.summary.contains("no rule of `ip rule` leads such packets to the table `local`"), "{}", told.summary);
        assert_eq!(told.remedy, ["sudo nsenter -t 412 -n ip rule add pref 0 lookup local"]);
        assert_eq!(of(Astray::NoVrfRule).remedy, ["sudo nsenter -t 412 -n ip rule add pref 1000 l3mdev"]);
        let told = of(Astray::NoRoute);
        assert!(told.summary.ends_with("because the table `local` does not have it"), "{}", told.summary);
        let lost = &told.remedy[0];
        assert!(lost.starts_with("sudo nsenter -t 412 -n ip route add local "), "{lost}");
        assert!(lost.ends_with(" dev docker0 table local"), "{lost}");
    }

    #[test]
    fn one_that_is_there_is_not_told_as_stopped() {
        let told = found(Some("nsenter -t 412 -n"), Deafness::Unknown { undecided: Vec::new() });
        assert!(told.summary.contains("did not answer by its interface eth0 (ARP)"), "{}", told.summary);
        let texts = |told: &Diagnosis| format!("{} {}", told.summary, told.remedy.join(" "));
        assert!(!texts(&told).contains("stopped") && told.remedy.len() == 1, "{told:?}");
        let told = found(None, Deafness::Unknown { undecided: vec!["bridge f i".to_owned()] });
        assert!(told.summary.ends_with("by what is not known here (bridge f i)"), "{}", told.summary);
        assert_eq!(told.remedy[2], "sudo nft -a list ruleset");
    }

    #[test]
    fn a_rule_here_that_is_but_suspected_is_told_so() {
        let with = |certain| Evidence { unheard: Some(Unheard { rule: of("bridge"), certain }), ..Evidence::default() };
        let certain = expect(&waited(), &with(true), Code::NoNeighbour, Inferred);
        assert!(certain.summary.contains("in vain: rule handle 4 of bridge f i here drops"), "{}", certain.summary);
        assert_eq!(certain.remedy, ["sudo nft insert rule bridge f i meta protocol arp accept"]);
        let suspected = expect(&waited(), &with(false), Code::NoNeighbour, Inferred);
        assert!(suspected.summary.contains("in vain though it is there: most likely rule handle 4"), "{}", suspected.summary);
    }
}
