use super::*;
use crate::bench::attempt::Failure;
use crate::bench::result::Bench;
use crate::bench::rounds::Beside;
use crate::bench::target::Resolved;
use crate::windows::{Families, Portproxy, Told, WindowsFacts, parse as parse_facts};
use crate::wsl::NetworkingMode;

/// What the program of the script printed for the steps of a plan, compiled and run by Mono on Linux against servers there.
const RECORDED: &str = include_str!("answers/recorded.json");

fn plan() -> Plan {
    let target = |name: &str, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        Resolved { name: name.to_owned(), host: address.to_string(), address }
    };
    Plan {
        targets: vec![target("direct", "172.28.16.2:8080"), target("relay's \u{2019}v6\u{2019}", "[::1]:8080")],
        modes: vec![Mode::Http],
        clients: 3,
        duration: Duration::from_millis(500),
        rounds: None,
        rate: None,
        limit: Duration::from_secs(2),
        seed: 7,
    }
}

/// A Windows that answers in a known way.
struct Recorded(Result<String, InteropError>);

impl Interop for Recorded {
    fn powershell(&self, script: &str, limit: Duration) -> Result<String, InteropError> {
        assert!(script.contains("WsltraceLoad") && limit > Duration::from_mins(2));
        self.0.clone()
    }
}

fn answered(steps: &[&str]) -> String {
    let plan = serde_json::to_string(&WindowsPlan::of(&plan())).unwrap();
    format!("text of a profile\r\n\u{feff}{{\"plan\":{plan},\"frequency\":10000000,\"steps\":[{}]}}\r\n", steps.join(","))
}

/// A warm-up and two rounds of two paths.
fn steps() -> Vec<String> {
    (1..=6_u64)
        .map(|number| {
            format!(
                "{{\"lasted_ns\":250000000,\"connections\":9,\"errors\":0,\"rate\":24.0,\"failed\":{{\"refused\":2,\"no_port\":1}},\"times\":[[{},5],[{},1]]}}",
                number * 1000,
                number * 2000
            )
        })
        .collect()
}

fn run(answer: Result<String, InteropError>) -> Result<Answered, InteropError> {
    WindowsPlan::of(&plan()).run(&Recorded(answer))
}

#[test]
fn the_script_is_plain_and_short_and_holds_its_plan() {
    let drawn = WindowsPlan::of(&plan());
    let script = drawn.script().unwrap();
    assert!(script.is_ascii() && !script.contains("@PLAN@"));
    let line = script.lines().find_map(|line| line.strip_prefix("$plan = '")).unwrap().strip_suffix('\'').unwrap();
    assert!(!line.contains('\''));
    assert_eq!(serde_json::from_str::<WindowsPlan>(line).unwrap(), drawn);
    let sent = short(&script);
    assert!(encoded(&sent).len() < 25_000, "{}", encoded(&sent).len());
    let kept = |text: &str| text.replace(char::is_whitespace, "").len();
    let comments: usize =
        script.lines().map(str::trim).filter(|line| line.starts_with("//") || line.starts_with("# ")).map(kept).sum();
    assert_eq!(kept(&sent), kept(&script) - comments);
    // The end of a text in quotes has to begin its line, and only those may.
    assert_eq!(sent.lines().filter(|line| line.starts_with("'@")).count(), 1);
    let many = Plan { rounds: Some(100), targets: vec![plan().targets[0].clone(); 20], ..plan() };
    let error = WindowsPlan::of(&many).run(&Recorded(Err(InteropError::NotWsl))).unwrap_err();
    assert!(matches!(&error, InteropError::Failed { status } if status.contains("fewer targets")), "{error}");
}

#[test]
fn every_path_is_measured_once_a_round() {
    let drawn = WindowsPlan::of(&plan());
    assert_eq!((drawn.rounds, drawn.steps.len()), (2, 6));
    for round in 0..=2 {
        let mut paths: Vec<usize> = drawn.steps.iter().filter(|step| step.round == round).map(|step| step.path).collect();
        paths.sort_unstable();
        assert_eq!(paths, [0, 1]);
    }
    assert!(drawn.patience() > Duration::from_secs(6 * 2));
}

#[test]
fn an_answer_is_a_measurement() {
    let steps = steps();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let answered = run(Ok(answered(&steps))).unwrap();
    assert_eq!(answered.plan.targets, plan().targets);
    assert!(answered.warnings.is_empty());
    let paths = &answered.measured.paths;
    assert_eq!(paths.iter().map(|path| path.rounds.len()).collect::<Vec<_>>(), [2, 2]);
    // The warm-up is not counted: steps 3 to 6 are, each with six answers.
    let total = paths[0].total();
    assert_eq!((total.waited.len(), total.failed[&Failure::Refused], total.connections), (12, 4, 18));
    let medians: Vec<u64> =
        paths.iter().flat_map(|path| path.rounds.iter().map(|round| round.waited.value_at_quantile(0.5))).collect();
    let mut sorted = medians.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().zip([3000, 4000, 5000, 6000]).all(|(is, was)| is.abs_diff(was) < 5), "{medians:?}");
    assert!(matches!(answered.measured.tracer, Beside::Not(_)));
    let bench = Bench::of(&answered.plan, &answered.measured, false, Vec::new(), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!((bench.paths[0].segments_sent, bench.paths[0].difference.is_some()), (0, false));
}

#[test]
fn what_the_script_s_program_printed_is_read() {
    let answered = parse(RECORDED).unwrap();
    let total = answered.measured.paths[0].total();
    assert!(total.waited.len() > 10 && total.failures() == 0, "{:?}", total.failed);
    assert_eq!(answered.measured.paths[1].total().failed.keys().collect::<Vec<_>>(), [&Failure::Refused]);
}

#[test]
fn errors_silence_and_garbage_are_told_apart() {
    let failed = |answer: &str| run(Ok(answer.to_owned())).unwrap_err();
    let policy = failed("{\"error\":\"Cannot add type. Definition of new types is not supported in this language mode.\"}");
    assert!(matches!(&policy, InteropError::Failed { status } if status.contains("language mode")), "{policy}");
    let own = InteropError::TimedOut { seconds: 130 };
    assert_eq!(run(Err(own.clone())).unwrap_err(), own);
    let steps = steps();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let whole = answered(&steps);
    for garbage in [
        "",
        "Access is denied.",
        "{}",
        "{\"plan\":{}}",
        whole.trim_end().get(..whole.len() - 10).unwrap(),
        &answered(&steps[1..]),
        &whole.replace("\"path\":1", "\"path\":9"),
        &whole.replace("\"seconds\":0.5", "\"seconds\":1e300"),
        &whole.replace("\"refused\":2", "\"refused\":-2"),
        &whole.replace("\"refused\":2", "\"refused\":18446744073709551615"),
        &whole.replace("\"refused\"", "\"no such failure\""),
    ] {
        let error = failed(garbage);
        assert!(matches!(error, InteropError::Garbage(_)), "{garbage}: {error:?}");
    }
    let coarse = parse(&whole.replace("10000000", "64")).unwrap();
    assert!(coarse.warnings[0].contains("64 ticks"), "{:?}", coarse.warnings);
}

#[test]
fn the_ways_depend_on_the_mode_and_on_portproxy() {
    let address = Some("172.28.16.2".parse().unwrap());
    let ends = |mode, windows: Option<&WindowsFacts>| -> Vec<String> {
        ways(8080, mode, address, windows).iter().map(|way| format!("{}={}:{}", way.name, way.host, way.port)).collect()
    };
    let nat = ["direct=172.28.16.2:8080", "relay=127.0.0.1:8080", "relay-v6=::1:8080"];
    assert_eq!(ends(Some(NetworkingMode::Nat), None), nat);
    assert_eq!(ends(Some(NetworkingMode::Mirrored), None), ["loopback=127.0.0.1:8080"]);
    assert!(ends(Some(NetworkingMode::None), None).is_empty());
    let mut windows = parse_facts(include_str!("../../windows/transcripts/nat.json")).unwrap();
    let own = windows.vethernet.known().unwrap()[0].address;
    let entry = |listen: &str, listen_port, connect_port| Portproxy {
        families: Families::V4tov4,
        listen_address: listen.to_owned(),
        listen_port,
        connect_address: "172.28.16.2".to_owned(),
        connect_port,
    };
    windows.portproxy = Told::Known(vec![
        entry("*", 80, 8080),
        entry("127.0.0.1", 8080, 8080),
        entry("192.168.0.5", 81, 8080),
        entry("*", 82, 9),
    ]);
    let found = ends(Some(NetworkingMode::Nat), Some(&windows));
    assert_eq!(found[..3], nat);
    // What is there already is not measured twice, and an entry for another port is no way to this one.
    assert_eq!(found[3..], [format!("portproxy={own}:80"), "portproxy-3=192.168.0.5:81".to_owned()]);
}
