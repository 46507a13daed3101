//! How much faster than whoever else is fastest: this program against the best other engine, cell by cell.

use serde::Serialize;

use super::{Series, Summary, Timing};
use crate::stats::{Interval, ratio_interval};

/// A series of this program against the best other engine of some cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lead {
    /// Place in [`Summary::series`] of this program's.
    pub ours: usize,
    /// For each cell, its place in [`Summary::cells`] and that of the fastest other series.
    pub against: Vec<(usize, usize)>,
    /// Geometric mean over the cells of the other's median over ours: 2 is twice as fast.
    pub times: f64,
    /// Where that lies with 95 % confidence.
    pub interval: Option<Interval>,
}

impl Summary {
    /// The series of this program that others can be compared with.
    pub fn ours(&self) -> impl Iterator<Item = usize> {
        (0..self.series.len()).filter(|&series| self.series[series].is_ours())
    }

    /// `ours` on those of `cells` where an engine of others was measured on the same machine, with the same type of
    /// weights and on the same kind of device.
    #[must_use]
    pub fn lead(&self, ours: usize, cells: &[usize]) -> Option<Lead> {
        let others: Vec<usize> =
            (0..self.series.len()).filter(|&other| self.series[ours].rivals(&self.series[other])).collect();
        let pair = |&cell: &usize| {
            let mine = self.timing(cell, ours)?;
            let best = others.iter().filter_map(|&other| self.timing(cell, other));
            Some((mine, best.min_by(|a, b| a.median_ms.total_cmp(&b.median_ms))?))
        };
        let pairs: Vec<(&Timing, &Timing)> = cells.iter().filter_map(pair).collect();
        let logs: f64 = pairs.iter().map(|(mine, best)| (best.median_ms / mine.median_ms).ln()).sum();
        let samples: Vec<_> = pairs.iter().map(|(mine, best)| (&best.samples, &mine.samples)).collect();
        (!pairs.is_empty()).then(|| Lead {
            ours,
            against: pairs.iter().map(|(mine, best)| (mine.cell, best.series)).collect(),
            times: (logs / pairs.len() as f64).exp(),
            interval: ratio_interval(&samples),
        })
    }
}

impl Series {
    fn is_ours(&self) -> bool {
        self.variant.peer == "mlxt" && self.variant.device != "reference"
    }

    /// Whether the other is another engine's, and may be compared with this one.
    fn rivals(&self, other: &Self) -> bool {
        other.variant.peer != self.variant.peer
            && other.machine == self.machine
            && other.variant.dtype == self.variant.dtype
            && other.on_cpu() == self.on_cpu()
    }
}
