//! What the guest says on its second serial port, and what is made of it.

use serde_json::Value;

/// What has been read so far.
#[derive(Clone, Default)]
pub(crate) struct Report {
    kernel: Option<String>,
    last: Option<String>,
    passed: usize,
    /// Each with the first that was wrong.
    failed: Vec<String>,
    skipped: Vec<String>,
    impossible: usize,
    counted: Option<Value>,
    status: Option<i32>,
    /// The guest runs somebody's script, whose lines are passed on as they are.
    script: bool,
}

impl Report {
    /// Nothing read so far, of a guest that plays the self-test or that runs a script.
    pub(crate) fn new(script: bool) -> Self {
        Self { script, ..Self::default() }
    }

    /// Reads one line of the guest, and gives the rows of the table that it makes.
    pub(crate) fn read(&mut self, line: &str) -> Vec<String> {
        if let Some(kernel) = line.strip_prefix("kernel ") {
            self.kernel = Some(kernel.to_owned());
            return Vec::new();
        }
        if let Some(status) = line.strip_prefix("end ") {
            self.status = status.parse().ok();
            return Vec::new();
        }
        if self.script {
            return vec![line.to_owned()];
        }
        match serde_json::from_str::<Value>(line) {
            Ok(value) if value["type"] == "armed" => missing(&value),
            Ok(value) if value["name"].is_string() => self.scenario(&value),
            Ok(value) if value["passed"].is_u64() => {
                self.counted = Some(value);
                Vec::new()
            }
            Ok(value) if value["type"].is_string() => Vec::new(),
            _ => vec![format!("guest: {}", line.escape_debug())],
        }
    }

    fn scenario(&mut self, value: &Value) -> Vec<String> {
        let name = word(&value["name"]);
        let why: Vec<String> = match &value["why"] {
            Value::Array(problems) => problems.iter().map(word).collect(),
            Value::Null => Vec::new(),
            why => vec![word(why)],
        };
        self.last = Some(name.clone());
        let row = format!("{name:<30}");
        match value["result"].as_str() {
            Some("passed") => {
                self.passed += 1;
                vec![format!("{row} ok")]
            }
            Some("skipped") => {
                self.skipped.push(name);
                vec![format!("{row} skipped  {}", why.join("; "))]
            }
            Some("impossible") => {
                self.impossible += 1;
                vec![format!("{row} not here  {}", why.join("; "))]
            }
            _ => {
                self.failed.push(format!("{name} ({})", why.first().map_or("it does not say why", String::as_str)));
                let problems = why.iter().map(|problem| format!("{:<30}   {problem}", ""));
                std::iter::once(format!("{row} failed")).chain(problems).collect()
            }
        }
    }

    /// The line under the table of all guests.
    pub(crate) fn summary(reports: &[Self]) -> String {
        let kernel = reports.iter().find_map(|report| report.kernel.as_deref());
        let sum = |count: fn(&Self) -> usize| reports.iter().map(count).sum::<usize>();
        format!(
            "vm: Linux {}: {} passed, {} failed, {} skipped; {} faults that this kernel cannot have",
            kernel.unwrap_or("a kernel that did not come so far").escape_debug(),
            sum(|report| report.passed),
            sum(|report| report.failed.len()),
            sum(|report| report.skipped.len()),
            sum(|report| report.impossible)
        )
    }

    /// The scenario that was reported last.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The exit status of the self-test, once the guest came to its end.
    pub(crate) fn status(&self) -> Option<i32> {
        self.status
    }

    /// Good only if every scenario that this kernel can have was played and passed, and the self-test itself counted the same.
    pub(crate) fn judge(&self) -> Result<(), String> {
        if self.script {
            return if self.status == Some(0) { Ok(()) } else { Err("the script in the virtual machine failed".to_owned()) };
        }
        let (passed, failed, skipped, impossible) = (self.passed, self.failed.len(), self.skipped.len(), self.impossible);
        let counts = serde_json::json!({"passed": passed, "failed": failed, "skipped": skipped, "impossible": impossible});
        if failed > 0 || skipped > 0 {
            // Named again under a log of a thousand lines, whose middle is what readers and archives leave out.
            let list = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
            let parts = [list("failed", &self.failed), list("not played", &self.skipped)];
            return Err(format!("in the virtual machine {}", parts.into_iter().flatten().collect::<Vec<_>>().join("; ")));
        }
        if self.status != Some(0) || self.passed == 0 || self.counted.as_ref() != Some(&counts) {
            return Err("the self-test in the virtual machine did not come to its end; its console log says more".to_owned());
        }
        Ok(())
    }
}

/// The probes that are not on, one a row.
fn missing(armed: &Value) -> Vec<String> {
    let probes = armed["probes_missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row =
        |probe: &Value| format!("vm: not on: {} ({}): {}", word(&probe["probe"]), word(&probe["reason"]), word(&probe["cost"]));
    probes.iter().map(row).collect()
}

/// A text of the guest's, safe for a terminal.
fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::Report;

    fn read(lines: &[&str]) -> (Report, Vec<String>) {
        let mut report = Report::default();
        let rows = lines.iter().flat_map(|line| report.read(line)).collect();
        (report, rows)
    }

    const PASSED: &str = r#"{"name":"a","client":"connected","result":"passed"}"#;
    const SKIPPED: &str = r#"{"name":"b","client":null,"result":"skipped","why":"no nft"}"#;
    const IMPOSSIBLE: &str = r#"{"name":"d","client":null,"result":"impossible","why":"built without X"}"#;
    const FAILED: &str = r#"{"name":"c","client":null,"result":"failed","why":["one","two"]}"#;

    #[test]
    fn every_scenario_is_a_row_and_a_failed_one_says_why() {
        let (report, rows) = read(&["kernel 6.12.1", PASSED, SKIPPED, FAILED]);
        assert_eq!(rows.len(), 5);
        assert!(rows[1].ends_with("skipped  no nft") && rows[4].ends_with("  two"), "{rows:?}");
        assert_eq!((report.last(), report.status()), (Some("c"), None));
        let (other, _) = read(&[PASSED, IMPOSSIBLE]);
        assert_eq!(
            Report::summary(&[other, report]),
            "vm: Linux 6.12.1: 2 passed, 1 failed, 1 skipped; 1 faults that this kernel cannot have"
        );
    }

    #[test]
    fn only_a_complete_run_without_skips_is_good() {
        let counts = |skipped| format!(r#"{{"failed":0,"passed":1,"skipped":{skipped},"impossible":0}}"#);
        let good = [PASSED, &counts(0), "end 0"];
        assert_eq!(read(&good).0.judge(), Ok(()));
        let one_skipped = [PASSED, SKIPPED, &counts(1), "end 0"];
        let one_impossible = [PASSED, IMPOSSIBLE, r#"{"failed":0,"passed":1,"skipped":0,"impossible":1}"#, "end 0"];
        assert_eq!(read(&one_impossible).0.judge(), Ok(()));
        assert_eq!(read(&[SKIPPED, FAILED]).0.judge(), Err("in the virtual machine failed: c (one); not played: b".to_owned()));
        let bad: [&[&str]; 6] = [
            &one_skipped,
            &[PASSED, FAILED, "end 1"],
            &[PASSED, &counts(0), "end 1"],
            &[PASSED, &counts(1), "end 0"],
            &[PASSED, "end 0"],
            &[r#"{"failed":0,"passed":0,"skipped":0,"impossible":0}"#, "end 0"],
        ];
        for lines in bad {
            assert!(read(lines).0.judge().is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_script_is_passed_on_and_judged_by_its_exit_status() {
        let mut report = Report::new(true);
        let rows: Vec<String> = ["kernel 6.12.1", PASSED, "a \u{2192} b"].iter().flat_map(|line| report.read(line)).collect();
        assert_eq!(rows, [PASSED, "a \u{2192} b"]);
        assert!(report.judge().is_err(), "it has not come to its end");
        report.read("end 0");
        assert_eq!(report.judge(), Ok(()));
        report.read("end 3");
        assert!(report.judge().is_err());
    }

    #[test]
    fn missing_probes_are_named_and_other_lines_are_passed_on() {
        let armed = r#"{"type":"armed","probes_missing":[{"probe":"p","reason":"r","cost":"c"}]}"#;
        let (_, rows) = read(&[armed, r#"{"type":"summary"}"#, "sh: \u{7}oops"]);
        assert_eq!(rows, ["vm: not on: p (r): c", "guest: sh: \\u{7}oops"]);
    }
}
