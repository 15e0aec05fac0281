//! What is told, and when: attempts of several sockets, causes that repeat, lines that are rewritten.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use super::{Report, Shown, TextOptions, TextOutput, Verbosity, samples};
use crate::journey::Family;

struct Page {
    text: TextOutput<Vec<u8>, Vec<u8>>,
    began: Instant,
    read: usize,
}

impl Page {
    fn new(live: bool) -> Self {
        Self::showing(Shown::Attempts, live)
    }

    fn showing(shown: Shown, live: bool) -> Self {
        let options =
            TextOptions { color: false, width: 80, talk_width: 80, terminal: false, verbosity: Verbosity::Quiet, shown, live };
        let began = Instant::now();
        Self { text: TextOutput::new(Vec::new(), Vec::new(), options, began), began, read: 0 }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    /// A journey that was sent and reported at this time.
    fn journey(&mut self, mut report: Report, ms: u64) {
        report.journey.time += Duration::from_millis(ms);
        self.text.journey(report, self.at(ms)).unwrap();
    }

    /// What was written since this was asked last.
    fn new_text(&mut self) -> String {
        let all = self.text.out();
        let new = String::from_utf8(all[self.read..].to_vec()).unwrap();
        self.read = all.len();
        new
    }

    fn settled(&mut self, ms: u64) -> String {
        self.text.advance(self.at(ms)).unwrap();
        self.new_text()
    }

    fn ticked(&mut self, ms: u64) -> String {
        self.text.refresh(self.at(ms)).unwrap();
        self.new_text()
    }

    fn ended(&mut self, ms: u64) -> String {
        self.text.summary(&samples::summary(), self.at(ms)).unwrap();
        self.new_text()
            .lines()
            .take_while(|line| !line.contains("connection attempts"))
            .fold(String::new(), |all, line| all + line + "\n")
    }
}

fn from_port(mut report: Report, port: u16) -> Report {
    report.journey.flow.source_port = port;
    report
}

fn on_localhost(mut report: Report, v6: bool) -> Report {
    let address = samples::ip(if v6 { "::1" } else { "127.0.0.1" });
    let flow = &mut report.journey.flow;
    (flow.source, flow.destination) = (address, address);
    flow.family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
    report
}

#[test]
fn several_sockets_of_one_client_are_one_attempt() {
    let mut page = Page::new(false);
    for (port, ms) in [(1, 0), (2, 1), (3, 250)] {
        page.journey(from_port(samples::healthy(), port), ms);
    }
    assert_eq!(page.new_text(), "");
    assert_eq!(page.text.due(), Some(page.at(300)));
    let said = page.settled(300);
    assert_eq!(said.matches('\u{2713}').count(), 1, "{said}");
    assert!(said.contains("and 2 more sockets with it"), "{said}");
    assert_eq!(page.text.due(), None);
}

#[test]
fn all_shows_each_on_its_own_at_once() {
    let mut page = Page::showing(Shown::Each, false);
    for port in 1..=3 {
        page.journey(from_port(samples::healthy(), port), 0);
        assert_eq!(page.new_text().matches(&format!("172.28.16.1:{port} ")).count(), 1);
        page.journey(from_port(samples::bound_elsewhere(), port), 0);
        assert_eq!(page.new_text().matches(&format!("172.28.16.1:{port} ")).count(), 1);
    }
    assert_eq!(page.text.due(), None);
    assert_eq!(page.ended(1_000), "");
}

#[test]
fn another_client_another_port_and_a_later_moment_are_attempts_of_their_own() {
    let mut page = Page::new(false);
    page.journey(samples::healthy(), 0);
    let mut other = samples::healthy();
    other.journey.flow.source = samples::ip("172.28.16.9");
    page.journey(other, 1);
    let mut other = samples::healthy();
    other.journey.flow.destination_port = 81;
    page.journey(other, 2);
    page.journey(from_port(samples::healthy(), 9), 301);
    assert_eq!(page.settled(1_000).matches('\u{2713}').count(), 4);
}

#[test]
fn a_half_of_localhost_that_fails_does_no_harm_when_the_other_is_answered() {
    let mut page = Page::new(false);
    page.journey(on_localhost(samples::bound_elsewhere(), true), 0);
    page.journey(on_localhost(samples::healthy(), false), 2);
    let said = page.settled(302).replace("\n  ", " ");
    assert!(!said.contains('\u{2717}'), "{said}");
    assert!(said.contains("it tried [::1]:8080 first (listener_bound_elsewhere) and took the other address"), "{said}");
}

#[test]
fn both_halves_of_localhost_that_fail_alike_are_told_once() {
    let mut page = Page::new(false);
    for ms in [0, 5_000] {
        page.journey(on_localhost(samples::container(), true), ms);
        page.journey(on_localhost(samples::container(), false), ms + 1);
    }
    let said = page.settled(5_900);
    assert_eq!(said.matches('\u{2717}').count(), 1, "{said}");
    assert!(said.contains("[::1]:51234 \u{2192} [::1]:8080, then 127.0.0.1:51234 \u{2192} 127.0.0.1:8080"), "{said}");
    assert_eq!(page.ticked(6_000), "\u{21bb} [::1]:8080 and 127.0.0.1:8080 no_listener \u{d7} 4 within 5.00 s\n");
}

#[test]
fn a_failure_beside_an_answer_at_the_same_address_is_told() {
    let mut page = Page::new(false);
    page.journey(samples::firewall(None), 0);
    page.journey(from_port(samples::healthy(), 2), 1);
    let said = page.settled(400);
    assert!(said.contains('\u{2713}') && said.contains('\u{2717}'), "{said}");
}

#[test]
fn a_file_gets_a_count_when_it_has_doubled_or_a_minute_has_passed_and_at_the_end() {
    let mut page = Page::new(false);
    let fail = |page: &mut Page, ms| page.journey(samples::firewall(None), ms);
    fail(&mut page, 0);
    assert_eq!(page.settled(300).matches('\u{2717}').count(), 1);
    assert_eq!(page.ticked(900), "");
    fail(&mut page, 1_000);
    assert_eq!(page.new_text(), "");
    assert_eq!(page.ticked(1_999), "");
    assert_eq!(page.ticked(2_000), "\u{21bb} 172.28.16.2:8080 firewall_drop \u{d7} 2 within 1.00 s\n");
    fail(&mut page, 3_000);
    assert_eq!(page.ticked(3_000), "");
    assert_eq!(page.ticked(62_000), "\u{21bb} 172.28.16.2:8080 firewall_drop \u{d7} 3 within 3.00 s\n");
    fail(&mut page, 63_000);
    assert_eq!(page.ended(64_000), "\u{21bb} 172.28.16.2:8080 firewall_drop \u{d7} 4 within 63.0 s\n");
}

/// A busy machine looks seldom and late, and a recording is told without looking at a clock at all.
#[test]
fn what_is_written_does_not_depend_on_how_often_it_is_looked() {
    let tell = |looks: &[u64]| {
        let mut page = Page::new(false);
        let mut looks = looks.iter().peekable();
        let mut journeys =
            vec![(samples::firewall(None), 100), (samples::firewall(None), 110), (samples::bound_elsewhere(), 900)];
        journeys.extend([
            (from_port(samples::healthy(), 7), 1_010),
            (samples::firewall(None), 65_000),
            (samples::healthy(), 70_500),
        ]);
        let mut said = String::new();
        for (report, ms) in journeys {
            while let Some(look) = looks.next_if(|look| **look <= ms) {
                said += &page.settled(*look);
            }
            page.journey(report, ms);
            said += &page.new_text();
        }
        said + &page.ended(80_000)
    };
    let seldom = tell(&[]);
    let lines: Vec<&str> = seldom.lines().filter(|line| line.starts_with(['\u{2713}', '\u{2717}', '\u{21bb}'])).collect();
    assert_eq!(lines.len(), 6, "{seldom}");
    assert!(lines[1].ends_with("firewall_drop \u{d7} 2 within 10.0 ms"), "{seldom}");
    let often: Vec<u64> = (0..800).map(|look| look * 100).collect();
    for looks in [&often[..], &[399, 1_009], &[30_000], &[64_999, 70_499]] {
        assert_eq!(tell(looks), seldom, "{looks:?}");
    }
}

#[test]
fn sockets_of_one_attempt_count_and_other_causes_are_told() {
    let mut page = Page::new(false);
    for port in 1..=6 {
        page.journey(from_port(samples::firewall(None), port), 0);
    }
    page.journey(samples::firewall(Some(samples::rule())), 1);
    let said = page.settled(400);
    assert_eq!(said.matches('\u{2717}').count(), 2, "{said}");
    assert!(page.ended(500).starts_with("\u{21bb} 172.28.16.2:8080 firewall_drop \u{d7} 6 within 0 ns\n"));
}

#[test]
fn the_number_of_an_attempt_stays_in_the_block() {
    let mut report = samples::firewall(None);
    report.journey.attempt = 2;
    let options = TextOptions {
        color: false,
        width: 40,
        talk_width: 40,
        terminal: false,
        verbosity: Verbosity::Quiet,
        shown: Shown::Each,
        live: false,
    };
    let mut text = TextOutput::new(Vec::new(), Vec::new(), options, Instant::now());
    text.journey(report, Instant::now()).unwrap();
    let said = String::from_utf8(text.out().clone()).unwrap();
    assert!(said.lines().any(|line| line == "  attempt 2"), "{said}");
}

#[test]
fn the_echo_of_ctrl_c_is_taken_away() {
    let mut page = Page::new(true);
    page.text.interrupted().unwrap();
    assert_eq!(page.new_text(), "\r\x1b[K");
    let mut page = Page::new(false);
    page.text.interrupted().unwrap();
    assert_eq!(page.new_text(), "");
}

#[test]
fn a_terminal_rewrites_its_last_lines_and_keeps_the_final_count() {
    let mut page = Page::new(true);
    page.journey(samples::firewall(None), 0);
    page.settled(300);
    page.journey(samples::firewall(None), 1_000);
    let line = |count, when: &str| format!("\u{21bb} 172.28.16.2:8080 firewall_drop \u{d7} {count}{when}");
    assert_eq!(page.ticked(1_100), line(2, ", last just now"));
    page.journey(samples::firewall(None), 2_000);
    assert_eq!(page.ticked(4_000), format!("\r\x1b[J{}", line(3, ", last 2 s ago")));
    // After a stop the shell has written below it.
    page.text.resumed().unwrap();
    assert_eq!(page.ticked(5_000), format!("\r\x1b[J{}", line(3, ", last 3 s ago")));
    // Something else is written above it.
    page.journey(samples::healthy(), 6_000);
    let said = page.settled(6_300);
    assert!(said.starts_with("\r\x1b[J\u{2713}") && said.ends_with(&line(3, ", last 4 s ago")), "{said:?}");
    assert_eq!(page.ended(7_000), format!("\r\x1b[J{}\n", line(3, " within 2.00 s")));
}
