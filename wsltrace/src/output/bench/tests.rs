#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use super::*;
use crate::bench::attempt::Mode;
use crate::bench::result::{BenchTag, TracedPath, Tracer};
use crate::bench::trace::legs::{Leg, Share};
use crate::bench::trace::parts::Part;
use crate::journey::Origin;
use crate::output::contract::{ProbeMissing, Time, Version};
use crate::output::{Shown, Verbosity};

fn times(p50: u64) -> Times {
    #[expect(clippy::cast_precision_loss, reason = "a sample")]
    let mean = p50 as f64 * 1.1;
    Times { count: 9_000, mean, p50, p90: p50 * 2, p99: p50 * 4, p999: p50 * 9, max: p50 * 12 }
}

fn leg(origin: Origin, destination: &str, onward: Option<&str>, scale: f64) -> Leg {
    let parts = Part::ALL.into_iter().filter(|part| *part != Part::Accept && (*part != Part::Way || origin == Origin::Local));
    Leg {
        origin,
        interface: Some("eth0".to_owned()),
        destination: destination.parse().unwrap(),
        onward: onward.map(|onward| onward.parse().unwrap()),
        handshake: times(40_000),
        parts: parts
            .zip([900.0, 3_700.0, 40.0, 1_900.0, 4_400.0, 1_800.0, 4_800.0, 5_900.0, 17_300.0, 12.0])
            .map(|(part, ns)| Share { part, ns: ns * scale })
            .collect(),
        stages: Vec::new(),
    }
}

fn path(name: &str, p50: u64, legs: Vec<Leg>, remark: Option<&str>) -> Measured {
    let cost = Difference { mean: 12_900.0, low: -4_000.0, high: 29_800.0 };
    Measured {
        path: name.to_owned(),
        address: "172.28.16.2:8000".to_owned(),
        mode: Mode::Http,
        with_tracer: false,
        attempts: 10_000,
        not_begun: 0,
        given_up: 0,
        given_up_after: 0,
        per_second: 5_301.4,
        waited: times(p50),
        service: times(p50),
        failed: if name == "relay" { BTreeMap::from([(Failure::Closed, 7), (Failure::TimedOut, 1)]) } else { BTreeMap::new() },
        errors: 0,
        segments_sent: 40_000,
        segments_sent_again: 3,
        segments_unknown: None,
        connections: 10_000,
        connections_sent_again: 2,
        round_p50: vec![p50; 8],
        baseline: (name != "direct").then(|| "direct".to_owned()),
        difference: (name != "direct").then_some(Difference { mean: 1_420_000.0, low: 658_000.0, high: 2_180_000.0 }),
        traced: Some(TracedPath {
            attempts: 9_000,
            per_second: 4_998.0,
            round_p50: vec![p50 + 13_000; 8],
            cost: (name != "direct").then_some(cost),
            legs,
            remark: remark.map(str::to_owned),
            server_sent_again: (name == "direct").then_some(4),
            server_sent_again_unknown: (name != "direct")
                .then(|| "its server has another port than the one that is asked for".to_owned()),
        }),
    }
}

fn sample() -> Bench {
    let proxied = vec![leg(Origin::Remote, "172.28.16.2:8003", None, 1.1), leg(Origin::Local, "172.17.0.2:80", None, 1.5)];
    Bench {
        r#type: BenchTag::Bench,
        schema: Version,
        time: Time("2026-11-22T21:14:03Z".parse().unwrap()),
        clients: 10,
        seconds: 2.0,
        rate: None,
        seed: 1,
        rounds: 8,
        warm_up: 0.2,
        partial: true,
        warnings: vec!["the host took 5 % of the processors' time (steal): measure again when it is quieter".to_owned()],
        tracer: Tracer {
            off: None,
            lost: 2,
            missing: vec![ProbeMissing {
                probe: "security_sock_graft".to_owned(),
                reason: "this kernel refuses programs on its functions (fentry)".to_owned(),
                cost: "the stage accepted is not shown".to_owned(),
            }],
        },
        paths: vec![
            path("direct", 1_030_000, vec![leg(Origin::Remote, "172.28.16.2:8000", None, 1.0)], None),
            path("relay", 3_030_000, vec![leg(Origin::WslLocalhostRelay, "127.0.0.1:8000", None, 1.3)], None),
            path("dnat", 1_560_000, vec![leg(Origin::Remote, "172.28.16.2:8080", Some("172.17.0.2:80"), 1.6)], None),
            path("docker-proxy", 3_170_000, proxied, Some("4 handshakes were not seen to their end, and are left out")),
            path(
                "away",
                900_000,
                Vec::new(),
                Some("9000 connections left this machine: what answers them is not seen from here"),
            ),
        ],
    }
}

#[test]
fn figures_with_the_tracer_on_are_called_so_and_compared_with_none_without_it() {
    let mut ended = sample();
    ended.paths[0].with_tracer = true;
    let text = bench(&ended, options(400));
    assert!(text.contains("\ndirect: measured with the tracer on only"), "{text}");
    assert!(!text.contains("  direct: ") && text.contains("  relay: p50"), "a cost of the tracer beside itself: {text}");
    let since = bench_comparison(&sample(), &ended, options(400));
    assert!(
        since.contains("direct: the tracer was on in one of the runs only") && since.contains("relay: no difference"),
        "{since}"
    );
    // By the same in all rounds later: the path is no worse beside the baseline.
    let mut later = sample();
    for path in &mut later.paths {
        for ns in &mut path.round_p50 {
            *ns += 500_000;
        }
    }
    let since = bench_comparison(&sample(), &later, options(400));
    assert!(
        since.contains("relay: worse, p50 +500 µs")
            && since.contains("\n  beside direct, at the same time: no difference, +0 ns"),
        "{since}"
    );
    assert!(since.replace("\n    ", " ").contains("; what changed is common to both"), "{since}");
    // As with --keep-alive both, which tells the modes apart by name.
    let mut renamed = sample();
    renamed.paths.truncate(2);
    renamed.paths[1].mode = Mode::HttpKeepAlive;
    renamed.paths[0].path = "direct, new connections".to_owned();
    let since = bench_comparison(&sample(), &renamed, options(400));
    assert!(since.contains("direct, new connections was called direct in the earlier run"), "{since}");
    assert!(since.contains("direct, new connections: no difference"), "{since}");
    assert!(since.contains("relay: its clients did something else in the earlier run"), "{since}");
    later.paths[1].round_p50 = vec![0; 8];
    later.paths[1].address = "192.0.2.1:80".to_owned();
    let since = bench_comparison(&sample(), &later, options(400));
    assert!(since.contains("relay: worse, nothing was answered"), "{since}");
    assert!(since.contains("relay: it leads to 192.0.2.1:80 now, and led to 172.28.16.2:8000"), "{since}");
    let csv = bench_csv(&ended);
    let column = csv.lines().next().unwrap().split(',').position(|name| name == "with_tracer").unwrap();
    let last: Vec<&str> = csv.lines().map(|line| line.split(',').nth(column).unwrap()).collect();
    assert_eq!(last, ["with_tracer", "true", "false", "false", "false", "false"]);
    assert!(!bench(&sample(), options(400)).contains("tracer on only"));
}

fn options(width: usize) -> TextOptions {
    TextOptions {
        color: false,
        width,
        talk_width: width,
        terminal: false,
        verbosity: Verbosity::Normal,
        shown: Shown::default(),
        live: false,
    }
}

#[test]
fn a_benchmark_at_three_widths() {
    for width in [40, 80, 120] {
        let text = bench(&sample(), options(width));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        insta::assert_snapshot!(format!("bench_{width}"), text);
    }
}

#[test]
fn a_bar_is_as_long_as_its_time_and_no_letter_is_lost_to_rounding() {
    let rows = sample();
    let text = bench(&rows, options(120));
    // The bars of a handshake that takes 1.6 times as long.
    let bar = |number: &str| text.lines().find(|line| line.starts_with(number) && line.ends_with("µs")).unwrap();
    let length = |number: &str| bar(number).split_whitespace().nth(1).unwrap().len();
    assert_eq!((length(" 3"), length(" 1")), (64, 40));
    assert!(bar(" 1").contains("aaaa") && !bar(" 1").contains('w') && !bar(" 1").contains('o'));
    let without = Bench { tracer: Tracer { off: Some("tracing needs root".to_owned()), ..Tracer::default() }, ..rows };
    let text = bench(&without, options(80));
    assert!(text.contains("Where the handshakes' time went is not shown: tracing needs root"), "{text}");
}
