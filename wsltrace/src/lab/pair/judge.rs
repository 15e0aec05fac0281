//! Whether a verdict is one that one of the faults alone would get: a pure function of the tracer's lines.

use serde::Deserialize as _;
use serde_json::Value;

use super::super::Scenario;
use crate::diagnosis::Code;
use crate::evidence::Backend;
use crate::journey::Stage;

/// What the tracer said last about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The finding's code, or the cause of a connection that does not get on.
    pub name: String,
    /// How the journey ended.
    pub outcome: String,
    /// Where it died, if it did.
    pub died_at: Option<String>,
    /// Where rules led it: of two that lead it elsewhere, the older one does.
    pub(super) led: Option<String>,
    /// The last stage that the SYN is known to have come to.
    pub(super) position: Option<String>,
    /// `proved` or `inferred`; empty for a connection that does not get on.
    pub confidence: String,
    /// The sentence.
    pub summary: String,
    /// The lines printed under it.
    pub remedy: Vec<String>,
}

impl Verdict {
    /// The last one in the tracer's lines; `None` where it saw nothing.
    pub(super) fn of(lines: &[Value]) -> Option<Self> {
        let journey = lines.iter().rfind(|line| line["type"] == "journey")?;
        let stall = lines.iter().rfind(|line| line["type"] == "stall");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let diagnosis = &journey["diagnosis"];
        let last = journey["stages"].as_array().and_then(|stages| stages.last()).map(|stage| &stage["stage"]);
        let position = if journey["died_at"].is_string() { &journey["died_at"] } else { last.unwrap_or(&Value::Null) };
        Some(Self {
            name: stall.map_or_else(|| text(&diagnosis["code"]), |stall| text(&stall["cause"])),
            outcome: text(&journey["outcome"]),
            died_at: journey["died_at"].as_str().map(str::to_owned),
            led: journey["translated"]["destination"].as_str().map(str::to_owned),
            position: position.as_str().map(str::to_owned),
            confidence: if stall.is_some() { String::new() } else { text(&diagnosis["confidence"]) },
            summary: text(&stall.unwrap_or(diagnosis)["summary"]),
            remedy: super::super::mend::remedy(lines).into_iter().map(str::to_owned).collect(),
        })
    }

    /// What does not depend on which of two faults was put in first.
    pub(super) fn place(&self) -> (&str, &str, Option<&str>) {
        (&self.name, &self.outcome, self.died_at.as_deref())
    }
}

/// Whether the last journey and the stall, if any, are what this fault must bring. Beside another fault the same death may end otherwise (a
/// firewall's reset that finds no way back) and show at another position (where rules of the other have one taken), and what becomes of a
/// packet that the other fault's lab leads `elsewhere` may have another name. The words that belong to the fault decide then.
pub(super) fn fits(scenario: &Scenario, elsewhere: bool, lines: &[Value]) -> bool {
    let Some(journey) = lines.iter().rfind(|line| line["type"] == "journey") else { return false };
    let expect = scenario.expectation(journey["attempt"].as_u64().unwrap_or(1));
    let stall = lines.iter().rfind(|line| line["type"] == "stall").map(|stall| &stall["cause"]);
    let died = Option::<Stage>::deserialize(&journey["died_at"]).is_ok_and(|told| told == expect.died.map(|(stage, _)| stage));
    let is_code = Code::deserialize(&journey["diagnosis"]["code"]).is_ok_and(|told| expect.codes.contains(&told));
    let says = !expect.says.is_empty() && journey["diagnosis"]["summary"].as_str().is_some_and(|told| told.contains(expect.says));
    let rule = &journey["rule"];
    let is_rule = |(backend, chain): (Backend, &str)| {
        Backend::deserialize(&rule["backend"]).is_ok_and(|told| told == backend) && rule["chain"] == chain
    };
    stall.cloned() == scenario.stall.map(|cause| cause.name().into())
        && expect.firewall.is_none_or(is_rule)
        && (is_code && (died || says || elsewhere || expect.firewall.is_some()) || says && elsewhere)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lab::find;

    fn dropped(chain: &str, died_at: &str) -> Value {
        json!({"type": "journey", "attempt": 1, "outcome": "dropped", "died_at": died_at, "rule": {"backend": "nft", "chain": chain},
               "diagnosis": {"code": "firewall_drop", "confidence": "proved", "summary": "by rule 4", "remedy": ["sudo nft x"]}})
    }

    #[test]
    fn a_verdict_belongs_to_the_fault_that_kills_there() {
        let (input, raw) = (find("drop-filter-nft").unwrap(), find("drop-raw-nft").unwrap());
        let lines = [dropped("input", "input_filter")];
        assert!(fits(&input, false, &lines) && !fits(&raw, false, &lines));
        assert!(!fits(&input, false, &[dropped("forward", "input_filter")]) && !fits(&input, false, &[]));
        let (refused, none) = (find("reject-reset-nft").unwrap(), find("route-blackhole-back").unwrap());
        let told = |code: &str, summary: &str| {
            [
                json!({"type": "journey", "outcome": "answer_dropped", "died_at": "forward", "diagnosis": {"code": code, "summary": summary}}),
            ]
        };
        let words = format!("dropped: {} x", none.expect.says);
        assert!(fits(&none, true, &told("reply_dropped", &words)) && !fits(&none, false, &told("reply_dropped", &words)));
        assert!(fits(&none, false, &told("no_route_back", &words)) && !fits(&none, false, &told("no_route_back", "dropped")));
        assert!(!fits(&refused, true, &lines));
        let stalled = [lines[0].clone(), json!({"type": "stall", "cause": "path_mtu", "summary": "s", "remedy": []})];
        assert!(!fits(&input, false, &stalled));
    }

    #[test]
    fn the_stall_is_the_last_word() {
        let journey = dropped("input", "input_filter");
        let stall = json!({"type": "stall", "cause": "path_mtu", "summary": "too large", "remedy": ["sudo ip x"]});
        let alone = Verdict::of(&[journey.clone(), json!({"type": "summary"})]).unwrap();
        assert_eq!((alone.summary.as_str(), alone.place()), ("by rule 4", ("firewall_drop", "dropped", Some("input_filter"))));
        let told = Verdict::of(&[journey, stall]).unwrap();
        assert_eq!((told.name.as_str(), told.summary.as_str(), told.remedy), ("path_mtu", "too large", vec!["sudo ip x".into()]));
        assert_eq!(Verdict::of(&[]), None);
    }
}
