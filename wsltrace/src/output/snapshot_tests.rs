//! Snapshots of the text at three widths, with and without colours. Refresh: `INSTA_UPDATE=always cargo test -p wsltrace`.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{JsonOutput, Shown, TextOptions, TextOutput, Verbosity, samples};

fn write(width: usize, color: bool, verbosity: Verbosity) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let now = std::time::Instant::now();
    let options =
        TextOptions { color, width, talk_width: width, terminal: false, verbosity, shown: Shown::Attempts, live: false };
    let mut text = TextOutput::new(&mut out, &mut err, options, now);
    text.armed(&samples::armed(), &samples::start(), now).unwrap();
    for report in samples::reports() {
        text.journey(report, now).unwrap();
    }
    let mut again = samples::reports().swap_remove(1);
    again.journey.attempt = 2;
    again.journey.time += std::time::Duration::from_millis(1_020);
    text.journey(again, now).unwrap();
    text.advance(now + std::time::Duration::from_millis(900)).unwrap();
    text.stall(&samples::stall(), now).unwrap();
    text.stall(&samples::stall(), now).unwrap();
    text.absence(&samples::absence(), &samples::waited()).unwrap();
    text.summary(&samples::summary(), now).unwrap();
    format!("{}{}", String::from_utf8(err).unwrap(), String::from_utf8(out).unwrap())
}

#[test]
fn text_at_three_widths() {
    for width in [40, 80, 120] {
        insta::assert_snapshot!(format!("text_{width}"), write(width, false, Verbosity::Normal));
    }
}

#[test]
fn text_with_colours_quiet_and_verbose() {
    insta::assert_snapshot!("text_colour", write(80, true, Verbosity::Normal).replace('\x1b', "ESC"));
    insta::assert_snapshot!("text_quiet", write(80, false, Verbosity::Quiet));
    insta::assert_snapshot!("text_verbose", write(80, false, Verbosity::Verbose));
}

#[test]
fn prose_keeps_to_the_width_and_foreign_strings_are_escaped() {
    for width in [40, 60, 80] {
        let text = write(width, false, Verbosity::Normal);
        assert!(!text.contains('\x1b'));
        for line in text.lines().filter(|line| !line.contains("sudo ") && !line.contains("socat ")) {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn failures_only_hides_the_healthy_and_nothing_else() {
    let mut out = Vec::new();
    let mut json = JsonOutput::new(&mut out, true);
    for report in samples::reports() {
        json.journey(&report).unwrap();
    }
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), samples::reports().len() - 1);
}
