//! Mistakes that people make in WSL's configuration files.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::ConfigFile::{WslConf, WslConfig};
use super::{ConfigFile, ConfigProblem, Hint, lint};

fn told(which: ConfigFile, text: &str) -> Vec<(usize, String, String)> {
    let line = |problem: ConfigProblem| (problem.line, problem.what, problem.corrected.join(" / "));
    lint(which, text, 8080).into_iter().map(line).collect()
}

fn only(which: ConfigFile, text: &str) -> ConfigProblem {
    let problems = lint(which, text, 8080);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn good_files_are_left_alone() {
    let config = "# mine\r\n[wsl2]\r\nmemory=8GB\r\nkernel=C:\\\\Users\\\\me\\\\bzImage\r\nnetworkingMode=Mirrored\r\nguiApplications = TRUE # yes\r\n\
                  [experimental]\r\nautoMemoryReclaim=gradual\r\nignoredPorts=3000,9000\r\nhostAddressLoopback=1\r\n\
                  [general]\r\ninstanceIdleTimeout=-1\r\n";
    assert_eq!(told(WslConfig, config), []);
    let conf = "[boot]\nsystemd=true\ncommand=\"service docker start # now\"\n[automount]\nroot = /\noptions = \"metadata,umask=22\"\n\
                [network]\nhostname=box\n[user]\ndefault=me\n[interop]\nenabled=true\nappendWindowsPath=0\n";
    assert_eq!(told(WslConf, conf), []);
    assert_eq!(told(WslConfig, "\u{feff}"), []);
}

#[test]
fn a_key_spelled_wrong_is_recognised() {
    let problem = only(WslConfig, "[wsl2]\nnetworkMode=mirrored\n");
    assert_eq!((problem.line, problem.hint), (2, Hint::Suspicious));
    assert_eq!(problem.what, "networkMode is no key that WSL knows; did you mean networkingMode?");
    assert_eq!(problem.corrected, ["networkingMode=mirrored"]);
    let problem = only(WslConfig, "[wsl2]\nignoredPort=8080\n");
    assert_eq!(problem.corrected, ["[experimental]", "ignoredPorts=8080"]);
    assert_eq!(only(WslConfig, "[wsl2]\nquux=1\n").corrected, ["# quux=1"]);
}

#[test]
fn a_section_of_the_other_file_is_told() {
    let problems = told(WslConf, "[wsl2]\nnetworkingMode=mirrored\n[boot]\nsystemd=true\n[network]\n");
    assert_eq!(problems.len(), 2);
    assert!(problems[0].1.starts_with("[wsl2] is a section of .wslconfig"), "{problems:?}");
}

#[test]
fn a_key_in_the_wrong_place_is_told_its_place() {
    let problem = only(WslConf, "[network]\nnetworkingMode=mirrored\n");
    assert_eq!(problem.what, "networkingMode is a key of .wslconfig, under [wsl2]; in /etc/wsl.conf WSL ignores it");
    assert_eq!(problem.corrected, ["[wsl2]", "networkingMode=mirrored"]);
    let problem = only(WslConfig, "[experimental]\nlocalhostForwarding=true\n");
    assert_eq!(problem.what, "localhostForwarding belongs under [wsl2], not under [experimental]");
    let problem = only(WslConfig, "localhostForwarding=true\n[wsl2]\n");
    assert_eq!(problem.what, "localhostForwarding stands before any section; it belongs under [wsl2]");
    assert_eq!(problem.corrected, ["[wsl2]", "localhostForwarding=true"]);
}

#[test]
fn sections_that_wsl_does_not_know_are_told_once() {
    let problem = only(WslConfig, "[wsl]\nfoo=1\n");
    assert_eq!(problem.what, "[wsl] is no section that WSL knows; [wsl2] is");
    assert_eq!(problem.corrected, ["[wsl2]"]);
    assert_eq!(told(WslConfig, "[mine]\nmemory=1GB\n").len(), 2);
}

#[test]
fn values_that_wsl_does_not_take_are_told() {
    let problem = only(WslConfig, "[wsl2]\nlocalhostForwarding=yes\n");
    assert_eq!(problem.corrected, ["localhostForwarding=true"]);
    // What looks like a comment is a part of the value, and makes it none.
    let problem = only(WslConfig, "[wsl2]\nlocalhostForwarding=false ; off\n");
    assert_eq!((problem.hint, problem.corrected), (Hint::Suspicious, vec!["localhostForwarding=false".to_owned()]));
    let problem = only(WslConfig, "[wsl2]\nnetworkingMode=mirror\n");
    assert_eq!(
        problem.what,
        "networkingMode takes nat, mirrored, consomme, virtioproxy, bridged, none, not mirror: WSL ignores the line"
    );
    assert_eq!(problem.corrected, ["networkingMode=mirrored"]);
    assert_eq!(only(WslConfig, "[wsl2]\nnetworkingMode=x\n").corrected, ["# networkingMode=x"]);
}

#[test]
fn backslashes_are_doubled() {
    for line in [r"kernel=C:\Users\me\bzImage", r"kernel=C:\temp\new", r"kernel=C:\\Users\bzImage"] {
        let problem = only(WslConfig, &format!("[wsl2]\n{line}\n"));
        assert_eq!(problem.what, "a backslash in the value of kernel must be written twice");
        let doubled = line.replace(r"\\", r"\").replace('\\', r"\\");
        assert_eq!(problem.corrected, [doubled]);
    }
    assert_eq!(told(WslConf, "[boot]\ncommand=printf 'a\\n'\n"), []);
}

#[test]
fn invalid_lines_and_foreign_comments_are_told() {
    let problem = only(WslConf, "; mine\n[boot]\nsystemd=true\n");
    assert_eq!(problem.what, "WSL takes only # as the beginning of a comment, not ;: WSL reads no further in this file");
    assert_eq!(problem.corrected, ["# mine"]);
    assert!(only(WslConfig, "[wsl2]\nmirrored\n").what.ends_with("WSL skips it"));
    assert!(only(WslConfig, "[wsl2]\nkernelCommandLine=\"a\n").what.contains("a quote that does not end"));
}

#[test]
fn the_second_of_two_is_told() {
    let problem = only(WslConfig, "[wsl2]\nnetworkingMode=nat\n[experimental]\nnetworkingMode=mirrored\n");
    assert_eq!((problem.line, problem.what.as_str()), (4, "networkingMode was already set in line 2, and WSL takes the first"));
}

#[test]
fn settings_that_bear_on_the_server_are_told() {
    let problem = only(WslConfig, "[wsl2]\nlocalhostForwarding=false\n");
    assert_eq!((problem.hint, problem.key.as_deref()), (Hint::WillFail, Some("wsl2.localhostforwarding")));
    assert_eq!(only(WslConfig, "[wsl2]\nfirewall=false\n").hint, Hint::Information);
    assert_eq!(only(WslConfig, "[wsl2]\nnetworkingMode=None\n").hint, Hint::WillFail);
    let problem = only(WslConfig, "[experimental]\nignoredPorts=3000, 8080,9000\n");
    assert_eq!((problem.hint, problem.corrected), (Hint::WillFail, vec!["ignoredPorts=3000,9000".to_owned()]));
    assert_eq!(told(WslConfig, "[experimental]\nignoredPorts=18080\n"), []);
}

#[test]
fn an_escaped_line_break_stays_out_of_the_sentence() {
    let problem = only(WslConfig, "[wsl2]\nfirewall=a\\nb\n");
    assert_eq!(problem.what, "firewall takes true or false, not a b: WSL ignores the line");
}

#[test]
fn any_text_is_linted_without_a_panic() {
    let parts = [
        "[",
        "]",
        "wsl2",
        "networkingMode",
        "=",
        "\\",
        "\"",
        "#",
        ";",
        "\n",
        "\r",
        " ",
        "é",
        "true",
        "8080,",
        "kernel",
        "\u{feff}",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let text: String = (0..random.usize(..24)).map(|_| parts[random.usize(..parts.len())]).collect();
        for which in [WslConf, WslConfig] {
            for problem in lint(which, &text, 8080) {
                assert!(problem.line >= 1 && problem.line <= text.lines().count() && !problem.what.contains('\n'), "{text:?}");
            }
        }
    }
}
