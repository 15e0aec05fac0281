//! Reading what `cargo test` prints: how many tests passed and failed in all test binaries, and which were skipped.
//!
//! A test that cannot run passes and prints `SKIP: <test>: <reason>`; it counts as skipped, not as passed. A test marked
//! `#[ignore]` is skipped too.

/// A test that did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    /// The test's name, as it calls itself.
    pub(crate) name: String,
    /// Why it could not run.
    pub(crate) reason: String,
}

/// The sum over all test binaries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    skips: Vec<Skip>,
    /// Whether the lines are those between `failures:` and `test result:`.
    telling: bool,
    failures: Vec<String>,
}

impl Tally {
    /// Takes one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        self.telling = (self.telling || line == "failures:") && !line.starts_with("test result: ");
        if self.telling {
            self.failures.push(line.to_owned());
        }
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += count(summary, "passed");
            self.failed += count(summary, "failed");
            self.ignored += count(summary, "ignored");
        } else if let Some(skip) = announced(line) {
            self.skips.push(skip);
        } else if let Some(skip) = ignored(line) {
            self.skips.push(skip);
        }
    }

    /// How many tests failed.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// What the test binaries said of their failed tests, to be said again at the end of a long log.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Each failed test with the beginning of what it said, a line each: logs are cut, and their ends are read.
    pub(crate) fn reasons(&self) -> Vec<String> {
        /// Characters of a reason.
        const KEPT: usize = 700;
        let mut reasons: Vec<String> = Vec::new();
        let mut within = false;
        for line in &self.failures {
            if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" ----")) {
                let name = name.strip_suffix(" stdout").unwrap_or(name);
                reasons.push(format!("failed: {name}:"));
                within = true;
            } else if line == "failures:" {
                within = false;
            } else if let (true, false, Some(reason)) = (within, line.trim().is_empty(), reasons.last_mut()) {
                let left = KEPT.saturating_sub(reason.chars().count());
                reason.extend(std::iter::once(' ').chain(line.trim().chars()).take(left));
            }
        }
        reasons
    }

    /// The tests that did not do their work.
    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// The one line that stands at the end.
    pub(crate) fn summary(&self) -> String {
        let announced = self.skips.len().saturating_sub(self.ignored);
        let passed = self.passed.saturating_sub(announced);
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skips.len().max(self.ignored))
    }
}

/// The number before a word in `ok. 3 passed; 1 failed; 0 ignored; ...`.
fn count(summary: &str, word: &str) -> usize {
    let part = summary.split([';', '.']).map(str::trim).find_map(|part| part.strip_suffix(word));
    part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// A skip that the test itself prints. With one test thread, libtest has printed `test NAME ... ` in front of it.
fn announced(line: &str) -> Option<Skip> {
    let at = if line.starts_with("test ") { line.find(" ... SKIP: ")? + " ... ".len() } else { 0 };
    let (name, reason) = line.get(at..)?.strip_prefix("SKIP: ")?.split_once(": ")?;
    Some(Skip { name: name.trim().to_owned(), reason: reason.trim().to_owned() })
}

/// A skip by `#[ignore = "reason"]`.
fn ignored(line: &str) -> Option<Skip> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("ignored");
    Some(Skip { name: name.to_owned(), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Skip, Tally};

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn the_binaries_are_summed() {
        let tally = tally(
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
             running 12 tests\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.50s\n",
        );
        assert_eq!(tally.summary(), "13 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failed(), 1);
    }

    #[test]
    fn what_is_said_of_failures_is_kept() {
        let tally = tally(
            "test a ... FAILED\nsuccesses:\n\nfailures:\n\n---- a stdout ----\nbecause\n\nfailures:\n    a\n\n\
             test result: FAILED. 0 passed; 1 failed\ntest b ... ok\ntest result: ok. 1 passed; 0 failed\n",
        );
        assert_eq!(tally.failures(), ["failures:", "", "---- a stdout ----", "because", "", "failures:", "    a", ""]);
    }

    #[test]
    fn a_failure_and_its_reason_fit_into_a_line() {
        let tally = tally(&format!(
            "failures:\n\n---- a stdout ----\nbecause\n  of b\n\n---- c ----\n{}\n\nfailures:\n    a\n    c\n\n\
             test result: FAILED. 0 passed; 2 failed\n",
            "x".repeat(1000)
        ));
        let reasons = tally.reasons();
        assert_eq!(reasons.first().map(String::as_str), Some("failed: a: because of b"));
        assert_eq!(reasons.iter().map(|reason| reason.chars().count()).collect::<Vec<_>>(), [23, 700]);
    }

    #[test]
    fn a_test_that_announces_its_skip_did_not_pass() {
        let tally = tally(
            "SKIP: netfilter_links: needs Linux 6.4: found 5.15\ntest netfilter_links ... ok\n\
             test tcx ... SKIP: tcx: needs Linux 6.6\nok\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(tally.summary(), "1 passed, 0 failed, 2 skipped");
        let skip = |name: &str, reason: &str| Skip { name: name.to_owned(), reason: reason.to_owned() };
        let expected = [skip("netfilter_links", "needs Linux 6.4: found 5.15"), skip("tcx", "needs Linux 6.6")];
        assert_eq!(tally.skips(), expected);
    }

    #[test]
    fn an_ignored_test_is_a_skip() {
        let tally = tally(
            "test slow ... ignored, takes an hour\ntest src/lib.rs - f (line 3) ... ignored\n\
             test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(tally.summary(), "1 passed, 0 failed, 2 skipped");
        assert_eq!(tally.skips().iter().map(|skip| skip.name.as_str()).collect::<Vec<_>>(), ["slow", "src/lib.rs - f (line 3)"]);
    }

    #[test]
    fn talk_about_skips_is_not_a_skip() {
        assert_eq!(
            tally("we may SKIP: nothing: here\nSKIP without colons\ntest x ... ok").summary(),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
