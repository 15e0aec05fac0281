//! Times as charts, with one logarithmic axis for all.

use hdrhistogram::Histogram;

use crate::journey::Stage;
use crate::output::Summary;
use crate::output::words::duration;

/// Bars of a power of ten.
const PER_DECADE: u32 = 8;
/// Width and height of the drawing area.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 56.0;

/// The times of one thing.
pub(super) struct Chart {
    /// What took this time.
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<Mark>,
    pub(super) ticks: Vec<Tick>,
    /// The percentiles as words.
    pub(super) figures: String,
}

pub(super) struct Bar {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
}

/// A percentile.
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) name: &'static str,
}

/// A power of ten on the axis.
pub(super) struct Tick {
    pub(super) x: String,
    pub(super) label: String,
}

/// A chart a stage.
pub(super) fn charts(summary: &Summary) -> Vec<Chart> {
    // The SYN-ACK is noted by the event that notes OUTPUT: there is no time between the two.
    let spent = summary.spent().filter(|(stage, _)| *stage != Stage::SynAck);
    named(spent.map(|(stage, spent)| (stage.name().to_owned(), spent)).collect())
}

/// A chart for each of these.
pub(super) fn named(all: Vec<(String, &Histogram<u32>)>) -> Vec<Chart> {
    let least = all.iter().map(|(_, spent)| spent.min()).min().unwrap_or(1).max(1);
    let most = all.iter().map(|(_, spent)| spent.max()).max().unwrap_or(1).max(1);
    let axis = Axis { first: least.ilog10(), last: (most.ilog10() + 1).max(least.ilog10() + 1) };
    all.into_iter().map(|(name, spent)| chart(name, spent, axis)).collect()
}

/// From 10 to the power of `first` to that of `last`, nanoseconds.
#[derive(Clone, Copy)]
struct Axis {
    first: u32,
    last: u32,
}

impl Axis {
    fn decades(self) -> f64 {
        f64::from(self.last - self.first)
    }

    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn x(self, ns: u64) -> f64 {
        (((ns.max(1)) as f64).log10() - f64::from(self.first)) / self.decades() * WIDTH
    }
}

fn chart(name: String, spent: &Histogram<u32>, axis: Axis) -> Chart {
    let count = (axis.last - axis.first) * PER_DECADE;
    let mut bins = vec![0_u64; count as usize];
    let width = WIDTH / f64::from(count);
    for value in spent.iter_recorded() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the number of bins")]
        let index = ((axis.x(value.value_iterated_to()) / width).floor().max(0.0) as usize).min(bins.len().saturating_sub(1));
        if let Some(bin) = bins.get_mut(index) {
            *bin += value.count_since_last_iteration();
        }
    }
    let most = bins.iter().copied().max().unwrap_or(1).max(1);
    let bars = bins.iter().zip(0_u32..).filter(|(bin, _)| **bin > 0).map(|(bin, index)| {
        #[expect(clippy::cast_precision_loss, reason = "a height in a picture")]
        // The rarest still shows.
        let height = (*bin as f64 / most as f64 * HEIGHT).max(1.5);
        Bar {
            x: format!("{:.1}", f64::from(index) * width),
            y: format!("{:.1}", HEIGHT - height),
            width: format!("{:.1}", (width - 1.0).max(1.0)),
            height: format!("{height:.1}"),
        }
    });
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    let marks = quantiles.map(|(name, quantile)| (name, spent.value_at_quantile(quantile)));
    let figures = marks.iter().map(|(name, value)| format!("{name} {}", duration(*value)));
    let figures = figures.chain([format!("max {}", duration(spent.max()))]).collect::<Vec<_>>().join("  ");
    // Labels of neighbouring powers of ten would meet on a long axis.
    let every = if axis.last - axis.first > 6 { 2 } else { 1 };
    let ticks = (axis.first..=axis.last).step_by(every).map(|power| {
        let ns = 10_u64.saturating_pow(power);
        Tick { x: format!("{:.1}", axis.x(ns)), label: power_label(power) }
    });
    Chart {
        name,
        count: spent.len(),
        bars: bars.collect(),
        marks: marks.iter().map(|(name, value)| Mark { x: format!("{:.1}", axis.x(*value)), name }).collect(),
        ticks: ticks.collect(),
        figures,
    }
}

/// A power of ten of a nanosecond: `10 ns`, `1 µs`.
fn power_label(power: u32) -> String {
    let unit = ["ns", "\u{b5}s", "ms", "s"].get(power as usize / 3).copied().unwrap_or("s");
    let thousands = (power / 3).min(3);
    format!("{} {unit}", 10_u64.saturating_pow(power - 3 * thousands))
}
