//! By how much two paths differ, and how sure that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Two-sided 95 % quantiles of Student's distribution, for 1 to 15 degrees of freedom; beyond them the last is on the safe side.
const STUDENT: [f64; 15] =
    [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131];

/// What the values are known to, as a part of the larger: histograms keep three digits. Rounds whose values fall into the same steps
/// scatter by nothing, and are no more certain for that.
const RESOLUTION: f64 = 1e-3;

/// A difference with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The mean of the differences of the rounds.
    pub mean: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What a difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Less time than the other.
    Faster,
    /// More time.
    Slower,
    /// The interval holds 0: nothing can be said.
    NoDifference,
}

impl Difference {
    /// Of pairs that belong together, such as the rounds of one run; `None` with fewer than two.
    pub fn of(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = pairs.collect();
        let all: Vec<f64> = pairs.iter().map(|(one, other)| one - other).collect();
        let step = RESOLUTION * largest(pairs.iter().flat_map(|(one, other)| [*one, *other]));
        let quantile = STUDENT.get(all.len().checked_sub(2)?.min(STUDENT.len() - 1))?;
        let (mean, variance, count) = moments(&all)?;
        let half = (quantile * (variance / count).sqrt()).max(step);
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// Of two runs whose rounds have nothing to do with each other (Welch); `None` with fewer than two rounds of either.
    pub fn between(one: &[f64], other: &[f64]) -> Option<Self> {
        let ((mean, variance, count), (other_mean, other_variance, other_count)) = (moments(one)?, moments(other)?);
        let (part, other_part) = (variance / count, other_variance / other_count);
        let error = (part + other_part).sqrt();
        let freedom = (part + other_part).powi(2) / (part.powi(2) / (count - 1.0) + other_part.powi(2) / (other_count - 1.0));
        // Without any scatter there is nothing to divide by.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded down: the safe side")]
        let freedom = if freedom.is_finite() { freedom.max(1.0) as usize } else { 1 };
        let step = RESOLUTION * largest(one.iter().chain(other).copied());
        let half = (STUDENT.get((freedom - 1).min(STUDENT.len() - 1))? * error).max(step);
        let mean = mean - other_mean;
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// What it says of times.
    pub fn comparison(self) -> Comparison {
        if self.low > 0.0 {
            Comparison::Slower
        } else if self.high < 0.0 {
            Comparison::Faster
        } else {
            Comparison::NoDifference
        }
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, f64::max)
}

/// The mean, the variance and the number of values; `None` of fewer than two.
fn moments(values: &[f64]) -> Option<(f64, f64, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "a few rounds")]
    let count = Some(values.len() as f64).filter(|count| *count >= 2.0)?;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some((mean, variance, count))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_the_textbook() {
        // Differences 1, 2, 3, 4: mean 2.5, standard deviation 1.29099, t(3) = 3.182.
        let difference = Difference::of([(2.0, 1.0), (4.0, 2.0), (6.0, 3.0), (8.0, 4.0)].into_iter()).unwrap();
        assert!((difference.mean - 2.5).abs() < 1e-9);
        assert!((difference.high - 2.5 - 2.054).abs() < 1e-3, "{difference:?}");
        assert_eq!(difference.comparison(), Comparison::Slower);
        assert_eq!(Difference::of([(1.0, 2.0)].into_iter()), None);
        // Two samples of three: means 2 and 5, variances 1, Welch's freedom 4, t(4) = 2.776.
        let between = Difference::between(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).unwrap();
        assert!((between.mean + 3.0).abs() < 1e-9 && (between.high + 3.0 - 2.776 * (2.0_f64 / 3.0).sqrt()).abs() < 1e-6);
        assert_eq!(between.comparison(), Comparison::Faster);
        assert_eq!(Difference::between(&[1.0], &[1.0, 2.0]), None);
        // Equal steps of a histogram: a difference of one step is none.
        let step = Difference::of([(1000.0, 1001.0), (1000.0, 1001.0)].into_iter()).unwrap();
        assert_eq!((step.comparison(), step.low < -2.0, step.high > 0.0), (Comparison::NoDifference, true, true), "{step:?}");
        let between = Difference::between(&[1000.0, 1000.0], &[1001.0, 1001.0]).unwrap();
        assert_eq!(between.comparison(), Comparison::NoDifference);
        assert_eq!(Difference::of([(1000.0, 1100.0); 2].into_iter()).unwrap().comparison(), Comparison::Faster);
        let noise = Difference::of([(1.0, 2.0), (2.0, 1.0), (1.5, 1.4)].into_iter()).unwrap();
        assert_eq!(noise.comparison(), Comparison::NoDifference);
    }
}
