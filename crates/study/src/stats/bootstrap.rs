//! How sure a median is: the hierarchical percentile bootstrap.
//!
//! Samples of one process share its memory layout and its luck, so they are not independent: each resample draws processes
//! first, then samples within each (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). The
//! interval is the middle 95 % of the statistic over all resamples. With one process it is the plain bootstrap over its samples.

use super::Samples;
use super::quantile::quantile;
use crate::random::Random;

/// Resamples for each interval: its ends are then known to about 0.35 percentage points of probability.
pub const RESAMPLES: usize = 2000;

/// The part of resamples left out on each side.
const TAIL: f64 = 0.025;

/// Fixed, so that the same records give the same report.
const SEED: u64 = 0x5eed_0007;

/// A range that holds the true value with 95 % confidence, in the unit of the values.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

pub(super) fn median_interval(samples: &Samples) -> Option<Interval> {
    (samples.sorted().len() > 1).then_some(())?;
    let mut random = Random::new(SEED, "bootstrap");
    let mut counts = Vec::new();
    middle((0..RESAMPLES).map(|_| resampled_median(samples, &mut random, &mut counts)).collect())
}

/// The interval of the geometric mean, over pairs, of the ratio of the first's median to the second's.
///
/// One pair gives the interval of one ratio; a pair for each cell that two variants share gives that of a speed-up. `None` without
/// pairs, where a side has a single value, and where a median may be zero or less.
#[must_use]
pub fn ratio_interval(pairs: &[(&Samples, &Samples)]) -> Option<Interval> {
    let usable = |samples: &Samples| samples.sorted().len() > 1 && samples.sorted()[0] > 0.0;
    (!pairs.is_empty() && pairs.iter().all(|(a, b)| usable(a) && usable(b))).then_some(())?;
    let mut random = Random::new(SEED, "bootstrap");
    let mut counts = Vec::new();
    let mut log_median = |samples| resampled_median(samples, &mut random, &mut counts).ln();
    let mut mean = || pairs.iter().map(|(a, b)| log_median(a) - log_median(b)).sum::<f64>() / pairs.len() as f64;
    let logs = middle((0..RESAMPLES).map(|_| mean()).collect())?;
    Some(Interval { low: logs.low.exp(), high: logs.high.exp() })
}

fn middle(mut statistics: Vec<f64>) -> Option<Interval> {
    statistics.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&statistics, TAIL)?, high: quantile(&statistics, 1.0 - TAIL)? })
}

/// The median of one resample. What is drawn are places in the sorted values, so counting finds the middle and nothing is sorted.
fn resampled_median(samples: &Samples, random: &mut Random, counts: &mut Vec<u32>) -> f64 {
    let Samples { places, sorted } = samples;
    counts.clear();
    counts.resize(sorted.len(), 0);
    let mut drawn = 0;
    for _ in places {
        let process = &places[random.below(places.len())];
        for _ in process {
            counts[process[random.below(process.len())]] += 1;
        }
        drawn += process.len();
    }
    let (mut below, mut lower) = (0, None);
    for (&count, &value) in counts.iter().zip(sorted) {
        below += count as usize;
        // The value in the middle, or the mean of the two there: of those at (drawn - 1) / 2 and drawn / 2, from 0.
        if lower.is_none() && below > (drawn - 1) / 2 {
            lower = Some(value);
        }
        if below > drawn / 2 {
            return f64::midpoint(lower.unwrap_or(value), value);
        }
    }
    samples.median() // not reached: all that was drawn is counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(processes: &[Vec<f64>]) -> Samples {
        Samples::new(processes.to_vec()).unwrap()
    }

    fn nested() -> impl Strategy<Value = Vec<Vec<f64>>> {
        prop::collection::vec(prop::collection::vec(0.1..1e6, 2..12), 1..5)
    }

    #[test]
    fn a_single_value_has_no_interval() {
        let one = samples(&[vec![3.0]]);
        assert_eq!(median_interval(&one), None);
        assert_eq!(ratio_interval(&[(&one, &one)]), None);
        assert_eq!(ratio_interval(&[]), None);
    }

    #[test]
    fn no_ratio_where_a_time_is_nothing() {
        let (none, some) = (samples(&[vec![0.0, 1.0]]), samples(&[vec![1.0, 2.0]]));
        assert_eq!(ratio_interval(&[(&some, &none)]), None);
    }

    #[test]
    fn it_holds_the_true_median_about_as_often_as_it_says() {
        // 400 draws of 25 values, uniform in 0..1: the true median is 0.5. Five standard errors of 95 % of 400 are 5.4 %.
        let mut random = Random::new(3, "uniform");
        let mut uniform = || random.below(1 << 40) as f64 / (1_u64 << 40) as f64;
        let mut draw = || samples(&[(0..25).map(|_| uniform()).collect()]);
        let held = (0..400).filter(|_| median_interval(&draw()).unwrap().contains(0.5)).count();
        assert!((358..=398).contains(&held), "{held} of 400");
    }

    #[test]
    fn processes_that_disagree_widen_it() {
        let agreeing = samples(&[vec![1.0, 2.0, 3.0, 4.0], vec![1.1, 2.1, 3.1, 4.1], vec![0.9, 1.9, 2.9, 3.9]]);
        let apart = samples(&[vec![1.0, 1.1, 0.9, 1.0], vec![2.1, 2.2, 2.0, 2.1], vec![3.9, 3.8, 4.0, 4.1]]);
        let width = |of: &Samples| median_interval(of).map(|i| i.high - i.low).unwrap();
        let pooled = samples(&[apart.sorted().to_vec()]);
        assert!(width(&apart) > width(&pooled));
        assert!(width(&apart) > width(&agreeing));
    }

    proptest! {
        #[test]
        fn it_lies_within_the_values_and_scales_with_them(processes in nested(), factor in 0.01..100.0) {
            let samples_of = |factor: f64| -> Samples {
                samples(&processes.iter().map(|p| p.iter().map(|v| v * factor).collect()).collect::<Vec<_>>())
            };
            let (plain, scaled) = (samples_of(1.0), samples_of(factor));
            let (a, b) = (median_interval(&plain).unwrap(), median_interval(&scaled).unwrap());
            prop_assert!(plain.sorted()[0] <= a.low && a.low <= a.high);
            prop_assert!(a.high <= plain.sorted()[plain.sorted().len() - 1]);
            prop_assert!((b.low / a.low / factor - 1.0).abs() < 1e-9 && (b.high / a.high / factor - 1.0).abs() < 1e-9);
            prop_assert_eq!(median_interval(&plain).unwrap(), a); // deterministic
        }

        #[test]
        fn the_ratio_of_a_thing_to_a_multiple_of_it_is_that_multiple(processes in nested(), factor in 0.01..100.0) {
            let plain = samples(&processes);
            let multiple = samples(&processes.iter().map(|p| p.iter().map(|v| v * factor).collect()).collect::<Vec<_>>());
            let one = ratio_interval(&[(&multiple, &plain)]).unwrap();
            prop_assert!(one.low <= factor * (1.0 + 1e-9) && factor * (1.0 - 1e-9) <= one.high);
            let several = ratio_interval(&[(&multiple, &plain), (&multiple, &plain), (&multiple, &plain)]).unwrap();
            prop_assert!(several.low <= factor * (1.0 + 1e-9) && factor * (1.0 - 1e-9) <= several.high);
        }
    }
}
