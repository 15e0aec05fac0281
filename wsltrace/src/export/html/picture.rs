//! The path as a picture: a box for every hook that packets entered, with how many did, and at its side how many died there.

use std::collections::BTreeMap;

use crate::diagnosis::{Code, stage_page};
use crate::escape::escape;
use crate::journey::{Journey, StageVisit};
use crate::output::Report;

/// Height of a box with its arrow, and of a heading.
const STEP: u32 = 46;
const HEADING: u32 = 30;
/// Height of a box with one line, where that line's foot is, and how far the next one is below it.
const BOX: u32 = 30;
const BASE: u32 = 20;
const LINE: u32 = 16;
/// Boxes of a picture; what is beyond is not drawn.
const BOXES: usize = 100;

/// What makes two stages one box.
#[derive(Clone, PartialEq, Eq)]
struct Spot {
    of_answer: bool,
    netns: u32,
    interface: Option<String>,
    name: &'static str,
}

struct Node {
    spot: Spot,
    entered: u64,
    deaths: BTreeMap<Code, u64>,
}

/// Collects the boxes, in an order in which every journey passes them from above to below.
#[derive(Default)]
pub(super) struct Picture {
    nodes: Vec<Node>,
    traced: Option<u32>,
}

/// A picture with its places computed, for an SVG.
pub(super) struct Drawing {
    pub(super) height: u32,
    pub(super) headings: Vec<Heading>,
    pub(super) boxes: Vec<DrawnBox>,
    /// The same in one sentence, for those who do not see it.
    pub(super) description: String,
}

pub(super) struct Heading {
    pub(super) y: u32,
    pub(super) text: String,
}

pub(super) struct DrawnBox {
    pub(super) y: u32,
    pub(super) name: &'static str,
    pub(super) entered: u64,
    pub(super) height: u32,
    /// What died there, a line each.
    pub(super) deaths: Vec<Death>,
    /// An arrow leads here from the box above.
    pub(super) joined: bool,
}

/// A finding, and how often it was made of what died in a box.
pub(super) struct Death {
    pub(super) y: u32,
    pub(super) text: String,
}

impl Picture {
    pub(super) fn add(&mut self, report: &Report) {
        let journey = &report.journey;
        self.traced.get_or_insert(journey.netns);
        let death = death(journey);
        let mut at: Option<usize> = None;
        for (index, visit) in journey.stages.iter().enumerate() {
            let spot = spot(journey, index, visit);
            let same = at.and_then(|at| self.nodes.get(at)).is_some_and(|node| node.spot == spot);
            let position = if same { at } else { self.enter(spot, at) };
            let Some(node) = position.and_then(|position| self.nodes.get_mut(position)) else { return };
            if !same {
                node.entered += 1;
            }
            if death == Some(index) {
                *node.deaths.entry(report.diagnosis.code).or_default() += 1;
            }
            at = position;
        }
    }

    /// The place of a box below `above`; a new one goes right below it.
    fn enter(&mut self, spot: Spot, above: Option<usize>) -> Option<usize> {
        let start = above.map_or(0, |above| above + 1);
        if let Some(found) = self.nodes.iter().skip(start).position(|node| node.spot == spot) {
            return Some(start + found);
        }
        if self.nodes.len() >= BOXES {
            return None;
        }
        self.nodes.insert(start, Node { spot, entered: 0, deaths: BTreeMap::new() });
        Some(start)
    }

    pub(super) fn draw(&self) -> Drawing {
        let mut drawing = Drawing { height: 0, headings: Vec::new(), boxes: Vec::new(), description: String::new() };
        let mut y = 4;
        let mut before: Option<&Spot> = None;
        let mut described = Vec::new();
        for node in &self.nodes {
            let spot = &node.spot;
            let place = |spot: &Spot| (spot.of_answer, spot.netns, spot.interface.clone());
            let is_new = before.map(place) != Some(place(spot));
            if is_new {
                y += if before.is_some() { 12 } else { 0 };
                drawing.headings.push(Heading { y: y + 16, text: self.heading(spot) });
                y += HEADING;
            }
            let deaths: Vec<String> = node.deaths.iter().map(|(code, count)| format!("{count} {code}")).collect();
            described.push(format!("{}: {} entered", spot.name, node.entered));
            if !deaths.is_empty() {
                described.push(format!("{} died there", deaths.join(", ")));
            }
            let lines = u32::try_from(deaths.len()).unwrap_or(1).saturating_sub(1) * LINE;
            let at = (y + BASE..).step_by(LINE as usize);
            let deaths = at.zip(deaths).map(|(y, text)| Death { y, text }).collect();
            drawing.boxes.push(DrawnBox {
                y,
                name: spot.name,
                entered: node.entered,
                height: BOX + lines,
                deaths,
                joined: !is_new,
            });
            y += STEP + lines;
            before = Some(spot);
        }
        drawing.height = y;
        drawing.description = described.join("; ");
        drawing
    }

    fn heading(&self, spot: &Spot) -> String {
        let what = if spot.of_answer { "answer on " } else { "" };
        let interface = spot.interface.as_deref().map_or_else(|| "no interface yet".to_owned(), escape);
        let netns = if Some(spot.netns) == self.traced { String::new() } else { format!(", namespace {}", spot.netns) };
        format!("{what}{interface}{netns}")
    }
}

fn spot(journey: &Journey, index: usize, visit: &StageVisit) -> Spot {
    let name = match stage_page(visit.stage).hook {
        Some("PREROUTING") => "prerouting",
        Some("INPUT") => "input",
        Some("FORWARD") => "forward",
        Some("OUTPUT") => "output",
        Some("POSTROUTING") => "postrouting",
        _ => visit.stage.name(),
    };
    let interface = visit.interface.as_deref().map(str::to_owned);
    Spot { of_answer: journey.answer.is_some_and(|answer| index >= answer), netns: visit.netns, interface, name }
}

/// The visit that the packet did not survive.
fn death(journey: &Journey) -> Option<usize> {
    journey.died_at?;
    journey.death_index().or_else(|| journey.stages.len().checked_sub(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::output::samples;

    #[test]
    fn what_died_in_one_box_has_a_line_each_and_the_next_box_is_below() {
        let mut picture = Picture::default();
        for code in [Code::FirewallDrop, Code::NoListener, Code::ListenerBoundElsewhere] {
            let mut report = samples::firewall(None);
            Arc::make_mut(&mut report.diagnosis).code = code;
            picture.add(&report);
        }
        let drawing = picture.draw();
        let deadly: Vec<&DrawnBox> = drawing.boxes.iter().filter(|node| !node.deaths.is_empty()).collect();
        assert_eq!(deadly.len(), 1);
        let lines: Vec<u32> = deadly.iter().flat_map(|node| &node.deaths).map(|death| death.y).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.windows(2).all(|two| two[1] - two[0] == LINE), "{lines:?}");
        for (above, below) in drawing.boxes.iter().zip(drawing.boxes.iter().skip(1)) {
            assert!(above.y + above.height < below.y);
        }
        let last = drawing.boxes.last().map_or(0, |last| last.y + last.height);
        assert!(last <= drawing.height);
    }
}
