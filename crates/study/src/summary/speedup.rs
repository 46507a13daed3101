//! How many times as fast as the baseline: ratios of medians on the same machine and the same cells.

use serde::Serialize;

use super::{Kind, Summary};
use crate::stats::{Interval, ratio_interval};

/// A series against the baseline, over the cells that both measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speedup {
    /// Place in [`Summary::series`].
    pub series: usize,
    /// Geometric mean of the baseline's time over this one's: 2 is twice as fast.
    pub times: f64,
    /// Where that lies with 95 % confidence.
    pub interval: Option<Interval>,
    /// Over how many cells.
    pub cells: usize,
}

impl Summary {
    /// Whom the others of a machine are compared with: the golden series where it was timed, else the one with most cells.
    #[must_use]
    pub fn baseline(&self, kind: &Kind, machine: &str) -> Option<usize> {
        let cells: Vec<usize> = self.measured(kind).collect();
        let golden = |series: usize| {
            let name = self.series[series].variant.to_string();
            // The golden values may have been computed in more bits than anybody is timed in.
            let same =
                |golden: &str| golden.rsplit_once('/').map(|(way, _)| way) == name.rsplit_once('/').map(|(way, _)| way);
            self.timings.iter().any(|timing| cells.contains(&timing.cell) && same(&timing.golden))
        };
        let measured = |series: usize| cells.iter().filter(|&&cell| self.timing(cell, series).is_some()).count();
        let here = self.series_of(&cells).into_iter().filter(|&series| self.series[series].machine == machine);
        here.max_by_key(|&series| (golden(series), measured(series), std::cmp::Reverse(series)))
    }

    /// Every other series of the baseline's machine against it, over those of `cells` that both measured.
    #[must_use]
    pub fn speedups(&self, baseline: usize, cells: &[usize]) -> Vec<Speedup> {
        let machine = &self.series[baseline].machine;
        let others = (0..self.series.len()).filter(|&s| s != baseline && self.series[s].machine == *machine);
        others.filter_map(|series| self.speedup(baseline, series, cells)).collect()
    }

    fn speedup(&self, baseline: usize, series: usize, cells: &[usize]) -> Option<Speedup> {
        let both = |&cell: &usize| Some((self.timing(cell, baseline)?, self.timing(cell, series)?));
        let pairs: Vec<_> = cells.iter().filter_map(both).collect();
        let logs: f64 = pairs.iter().map(|(base, other)| (base.median_ms / other.median_ms).ln()).sum();
        let samples: Vec<_> = pairs.iter().map(|(base, other)| (&base.samples, &other.samples)).collect();
        (!pairs.is_empty()).then(|| Speedup {
            series,
            times: (logs / pairs.len() as f64).exp(),
            interval: ratio_interval(&samples),
            cells: pairs.len(),
        })
    }
}
