//! Judgements on what servers did with connections, on hand-made journeys.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use super::{
    Code, Confidence,
    tests::{dropped, expect},
};
use crate::{
    evidence::{
        Cgroup, Evidence, FileLimit, Hindered, Hindrance, Listener, Proxied, Silence, Work,
        sysctls::{ABORTS_ON_OVERFLOW, TAKES_UP_IN_THE_MIDDLE},
    },
    journey::{Facts, Origin, Outcome, Stage, StageVisit},
    output::samples::{self, OVERFLOWED, after_prerouting, ip, journey, listener, with_listeners},
};

use Confidence::{Inferred, Proved};

#[test]
fn of_servers_that_share_a_port_only_what_is_known_is_said() {
    let one = |pid, queue| Listener { pid: Some(pid), queue, backlog: 4, ..listener("0.0.0.0") };
    let overflowed = Silence { drops: 1, overflows: 1, own_drops: 1, journeys: 1, ..Silence::default() };
    let ignored = samples::other(Outcome::Ignored).journey;
    let full = |listeners| {
        let evidence = Evidence { silence: Some(overflowed), ..with_listeners(listeners) };
        expect(&ignored, &evidence, Code::AcceptQueueFull, Inferred).summary
    };
    assert!(full(vec![one(1, 0), one(2, 5)]).contains("(pid 2) is full (5 wait, limit 4)"));
    let unclear = full(vec![one(1, 0), one(2, 0)]);
    assert!(unclear.contains("one of the 2 servers that share port 8080 (server, pid 1; server, pid 2) was full"), "{unclear}");
    // The kernel asks the one with the very address, whoever else listens.
    let destination = ignored.last_destination().0.to_string();
    let exact = Listener { pid: Some(3), queue: 5, backlog: 4, ..listener(&destination) };
    let evidence = Evidence { silence: Some(overflowed), ..with_listeners(vec![one(1, 5), exact]) };
    assert!(expect(&ignored, &evidence, Code::AcceptQueueFull, Proved).summary.contains("(pid 3) is full"));
}

#[test]
fn programs_of_a_control_group_are_not_taken_for_a_filter_of_the_socket() {
    let filtered = journey(
        &after_prerouting(&[Stage::Input, Stage::SocketLookup, Stage::Listener]),
        Outcome::Dropped,
        Some(Stage::Listener),
        Some(("SOCKET_FILTER", "tcp_v4_rcv+0x1")),
    );
    let plain = expect(&filtered, &with_listeners(vec![listener("0.0.0.0")]), Code::SocketPolicy, Proved).summary;
    assert!(plain.contains("or a BPF program of its control group"));
    let of = |program: &str, directory: &str| {
        let cgroup = Cgroup { directory: directory.to_owned(), programs: vec![program.to_owned()] };
        let evidence = Evidence { cgroup: Some(cgroup), ..with_listeners(vec![listener("0.0.0.0")]) };
        expect(&filtered, &evidence, Code::SocketPolicy, Inferred)
    };
    let by_systemd = of("sd_fw_ingress", "/sys/fs/cgroup/system.slice/web.service");
    assert!(by_systemd.summary.contains("sd_fw_ingress"));
    assert!(by_systemd.remedy[1].starts_with("sudo systemctl set-property --runtime web.service IPAddressAllow="));
    let by_another = of("own", "/sys/fs/cgroup/system.slice/web.service");
    assert_eq!(by_another.remedy, ["sudo bpftool cgroup show /sys/fs/cgroup/system.slice/web.service effective"]);
    let mut answer = samples::other(Outcome::AnswerDropped).journey;
    answer.reason = Some("BPF_CGROUP_EGRESS".into());
    assert!(expect(&answer, &Evidence::default(), Code::ReplyDropped, Proved).summary.contains("control group"));
}

#[test]
fn two_containers_with_one_address_are_told_where_the_wrong_one_was_asked() {
    let mut journey = samples::container().journey;
    journey.outcome = Outcome::Refused;
    journey.facts.kernel_reset = true;
    let server = Listener { netns: 7, ..listener("0.0.0.0") };
    let with = |twin| Evidence { twin, elsewhere: vec![server.clone()], ..with_listeners(Vec::new()) };
    let found = expect(&journey, &with(Some(7)), Code::NoListener, Proved);
    assert!(found.summary.contains("network namespace 7 has 172.17.0.2 as well, where "), "{}", found.summary);
    assert!(!expect(&journey, &with(None), Code::NoListener, Proved).summary.contains("as well"));
}

#[test]
fn a_client_that_may_not_send_is_told_with_its_own_control_group() {
    let refused = |origin| {
        let reason = Some(("BPF_CGROUP_EGRESS", "ip_finish_output+0xb6"));
        let mut journey = journey(&[Stage::Output, Stage::Postrouting], Outcome::Dropped, Some(Stage::Postrouting), reason);
        journey.origin = origin;
        journey
    };
    let cgroup = Cgroup { directory: "/sys/fs/cgroup/system.slice/job.service".into(), programs: vec!["sd_fw_egress".into()] };
    let evidence = Evidence { cgroup: Some(cgroup), ..Evidence::default() };
    let found = expect(&refused(Origin::Local), &evidence, Code::SocketPolicy, Proved);
    assert!(found.summary.contains("sd_fw_egress of the client's control group"), "{}", found.summary);
    assert_eq!(found.remedy[1], "sudo systemctl set-property --runtime job.service IPAddressAllow=172.28.16.2");
    let unknown = expect(&refused(Origin::Local), &Evidence::default(), Code::SocketPolicy, Proved);
    assert_eq!(unknown.remedy, ["sudo bpftool cgroup tree"]);
    expect(&refused(Origin::Remote), &evidence, Code::UnexplainedDrop, Proved);
}

#[test]
fn socat_is_given_the_family_of_each_of_its_ends() {
    let bridge = |asked: &str, bound: &str| {
        let mut journey = samples::bound_elsewhere().journey;
        journey.flow.destination = ip(asked);
        let found = expect(&journey, &with_listeners(vec![listener(bound)]), Code::ListenerBoundElsewhere, Proved);
        found.remedy.into_iter().find(|line| line.starts_with("socat "))
    };
    let line = |near: &str, far: &str| Some(format!("socat {near},fork,reuseaddr {far}"));
    let near = "TCP4-LISTEN:8080,bind=172.28.16.2";
    assert_eq!(bridge("172.28.16.2", "127.0.0.1"), line(near, "TCP4:127.0.0.1:8080"));
    // A socket of IPv6 that is bound to an address of IPv4 takes IPv4.
    assert_eq!(bridge("172.28.16.2", "::ffff:127.0.0.1"), line(near, "TCP4:127.0.0.1:8080"));
    assert_eq!(bridge("fd00:28:16::2", "::1"), line("TCP6-LISTEN:8080,bind=[fd00:28:16::2]", "TCP6:[::1]:8080"));
}

#[test]
fn what_keeps_a_server_from_accepting_is_told_with_its_own_remedy() {
    let mut journey = samples::healthy().journey;
    journey.facts.not_accepted = true;
    let waiting = Listener { queue: 1, ..listener("0.0.0.0") };
    let with = |pid, by| {
        let evidence = Evidence { hindered: Some(Hindered { pid, by }), ..with_listeners(vec![waiting.clone()]) };
        expect(&journey, &evidence, Code::NotAccepted, Inferred)
    };
    let files = |soft, hard| with(412, Hindrance::Files(FileLimit { soft, hard }));
    assert!(
        files(1024, None)
            .summary
            .contains("most likely because that process has as many files and connections open as it may (1024,")
    );
    assert_eq!(files(1024, None).remedy[0], "sudo prlimit --pid 412 --nofile=65536:");
    assert_eq!(files(1024, Some(1_048_576)).remedy[0], "sudo prlimit --pid 412 --nofile=65536:");
    assert_eq!(files(1024, Some(4096)).remedy[0], "sudo prlimit --pid 412 --nofile=4096:");
    assert_eq!(files(1024, Some(1024)).remedy[0], "sudo prlimit --pid 412 --nofile=65536");
    assert_eq!(files(100_000, None).remedy[0], "sudo prlimit --pid 412 --nofile=400000:");
    let work = |pid, work| with(pid, Hindrance::Work(work));
    let reads = work(412, Work::Reads("172.28.16.1:50000".parse().unwrap()));
    assert!(
        reads
            .summary
            .ends_with("the only thread of that process was waiting for what 172.28.16.1:50000 sends on another connection")
    );
    assert!(reads.remedy.iter().any(|line| line.contains("end what 172.28.16.1:50000 belongs to")), "{:?}", reads.remedy);
    assert!(work(7, Work::Computes).summary.contains("the only thread of process 7, which has the same socket, was computing"));
    assert!(work(412, Work::Awaits("/mnt/c/a\x1b[31m".into())).summary.contains("was waiting for /mnt/c/a\\x1b"));
    // What was found of a socket without a queue is of another.
    let evidence = Evidence {
        hindered: Some(Hindered { pid: 412, by: Hindrance::Work(Work::Computes) }),
        ..with_listeners(vec![listener("0.0.0.0")])
    };
    assert!(!expect(&journey, &evidence, Code::NotAccepted, Inferred).summary.contains("only thread"));
}

#[test]
fn a_client_whose_connection_came_to_nothing_was_not_accepted() {
    let mut half = samples::healthy().journey;
    half.facts.established = false;
    half.facts.acknowledged = true;
    half.facts.socket_lookup = true;
    assert!(expect(&half, &with_listeners(Vec::new()), Code::NotAccepted, Inferred).summary.contains("any longer"));
    expect(&half, &with_listeners(vec![listener("0.0.0.0")]), Code::Healthy, Inferred);
    expect(&half, &Evidence::default(), Code::Healthy, Inferred);
    half.facts.socket_lookup = false;
    half.facts.answer_from_outside = true;
    expect(&half, &with_listeners(Vec::new()), Code::Healthy, Proved);
    half.facts.answer_from_outside = false;
    assert!(expect(&half, &with_listeners(Vec::new()), Code::NotAccepted, Inferred).summary.contains("SYN proxy"));
}

#[test]
fn a_confirmation_that_the_kernel_resets_made_no_connection() {
    let mut half = samples::healthy().journey;
    half.facts = Facts { established: false, acknowledged: true, confirmation_reset: true, socket_lookup: true, ..half.facts };
    let full = Listener { queue: 5, backlog: 4, ..listener("0.0.0.0") };
    let with = |name: &str| Evidence { sysctls: vec![(name.to_owned(), "1".to_owned())], ..with_listeners(vec![full.clone()]) };
    let aborted = expect(&half, &with(ABORTS_ON_OVERFLOW), Code::NotAccepted, Inferred);
    assert!(aborted.summary.contains("was full (5 wait, limit 4)"), "{}", aborted.summary);
    let unexplained = expect(&half, &with_listeners(vec![listener("0.0.0.0")]), Code::NotAccepted, Inferred);
    assert!(unexplained.summary.contains("did not take what confirms"), "{}", unexplained.summary);
    half.facts.socket_lookup = false;
    let proxied = expect(&half, &with(TAKES_UP_IN_THE_MIDDLE), Code::NotAccepted, Inferred);
    assert_eq!(proxied.remedy[0], "sudo sysctl -w net.netfilter.nf_conntrack_tcp_loose=0");
    let unknown = expect(&half, &with(ABORTS_ON_OVERFLOW), Code::NotAccepted, Inferred);
    assert!(unknown.summary.contains("SYN proxy") && !unknown.summary.contains("loose"), "{}", unknown.summary);
}

#[test]
fn a_full_queue_is_proved_by_the_counter_only() {
    let ignored = samples::ignored();
    expect(&ignored.journey, &ignored.evidence, Code::AcceptQueueFull, Proved);
    let with = |silence: Silence| Evidence { silence: Some(silence), ..Evidence::clone(&ignored.evidence) };
    // Somebody else's overflow, with this SYN swallowed for another reason, or not counted at all.
    for doubtful in
        [Silence { drops: 2, ..OVERFLOWED }, Silence { own_drops: 0, ..OVERFLOWED }, Silence { journeys: 3, ..OVERFLOWED }]
    {
        expect(&ignored.journey, &with(doubtful), Code::AcceptQueueFull, Inferred);
        let no_way = Evidence { route_back: Some(false), ..with(doubtful) };
        expect(&ignored.journey, &no_way, Code::NoRouteBack, Inferred);
    }
    let no_way = Evidence { route_back: Some(false), ..with(OVERFLOWED) };
    expect(&ignored.journey, &no_way, Code::AcceptQueueFull, Proved);
    let drained = Evidence { silence: Some(OVERFLOWED), ..with_listeners(vec![listener("0.0.0.0")]) };
    assert!(expect(&ignored.journey, &drained, Code::AcceptQueueFull, Proved).summary.contains("was full; now it is not"));
    let unknown = Evidence { silence: None, ..Evidence::clone(&ignored.evidence) };
    expect(&ignored.journey, &unknown, Code::AcceptQueueFull, Inferred);
    let free = Evidence { silence: Some(Silence::default()), ..with_listeners(vec![listener("0.0.0.0")]) };
    expect(&ignored.journey, &free, Code::NoRouteBack, Inferred);
    let no_cookies = vec![("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned())];
    let half_open = Silence { overflows: 0, syn_queue_full: 1, ..OVERFLOWED };
    let evidence = Evidence { sysctls: no_cookies, silence: Some(half_open), ..free };
    expect(&ignored.journey, &evidence, Code::SynQueueFull, Proved);
    let doubtful = Evidence { silence: Some(Silence { drops: 2, ..half_open }), ..evidence };
    expect(&ignored.journey, &doubtful, Code::SynQueueFull, Inferred);
    let filter = dropped(&after_prerouting(&[Stage::InputFilter]), "NETFILTER_DROP", "nft_do_chain+0x3e8");
    expect(&filter, &ignored.evidence, Code::FirewallDrop, Proved);
}

#[test]
fn an_application_that_does_not_accept_is_told_of_by_the_probe_or_by_its_overfull_queue() {
    let mut journey = samples::healthy().journey;
    let idle = Listener { queue: 1, backlog: 8, ..listener("0.0.0.0") };
    let overfull = Listener { queue: 9, ..idle.clone() };
    expect(&journey, &with_listeners(vec![idle.clone()]), Code::Healthy, Proved);
    expect(&journey, &with_listeners(vec![overfull]), Code::NotAccepted, Inferred);
    journey.facts.not_accepted = true;
    let found = expect(&journey, &with_listeners(vec![idle.clone()]), Code::NotAccepted, Inferred);
    assert!(found.summary.ends_with("had not accepted it a second later: its queue holds 1 of 8"), "{}", found.summary);
    let pid = idle.pid.into_iter().collect();
    let stopped = Evidence { stopped: pid, ..with_listeners(vec![idle.clone()]) };
    let found = expect(&journey, &stopped, Code::NotAccepted, Inferred);
    assert!(found.summary.ends_with("is stopped, as Ctrl-Z does it"), "{}", found.summary);
    assert!(found.remedy.iter().any(|line| line.starts_with("sudo kill -CONT ")), "{:?}", found.remedy);
    expect(&journey, &Evidence::default(), Code::NotAccepted, Inferred);
    journey.stages.extend(journey.stages.last().cloned().map(|visit| StageVisit { stage: Stage::Accepted, ..visit }));
    expect(&journey, &with_listeners(vec![idle]), Code::Healthy, Proved);
}

#[test]
fn a_reset_by_the_server_is_told_with_its_time_and_with_who_it_was() {
    let mut journey = samples::healthy().journey;
    journey.facts.server_reset_ns = Some(340_000);
    let found = expect(&journey, &with_listeners(vec![listener("0.0.0.0")]), Code::NotAccepted, Proved);
    assert!(found.summary.contains("reset the connection 340 \u{b5}s later, before it sent a byte"), "{}", found.summary);
    let gone = expect(&journey, &with_listeners(Vec::new()), Code::NotAccepted, Proved);
    assert!(gone.summary.ends_with("nothing listens on port 8080 any longer"), "{}", gone.summary);
    let proxy = Listener { pid: Some(7), command: Some("docker-proxy".to_owned()), ..listener("0.0.0.0") };
    let proxied = |there| Proxied { pid: 7, to: (Ipv4Addr::new(172, 17, 0, 2), 80).into(), there };
    let by_proxy = |there| Evidence { proxied: vec![proxied(there)], ..with_listeners(vec![proxy.clone()]) };
    let inner = |address| Some(vec![Listener { port: 80, ..listener(address) }]);
    for (there, said) in [
        (Some(Vec::new()), "to 172.17.0.2:80 in a container, where nothing listens"),
        (inner("127.0.0.1"), "where the container's server listens only on 127.0.0.1"),
        (inner("0.0.0.0"), "to 172.17.0.2:80 in a container"),
        (None, "where most likely nobody takes them"),
    ] {
        let found = expect(&journey, &by_proxy(there), Code::NotAccepted, Proved);
        assert!(found.summary.ends_with(said), "{}", found.summary);
    }
    // Who listens is not known: nothing is said of it.
    let unknown = expect(&journey, &Evidence::default(), Code::NotAccepted, Proved);
    assert!(unknown.summary.ends_with("before it sent a byte"), "{}", unknown.summary);
}
