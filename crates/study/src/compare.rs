//! What became slower or faster from one set of records to another, beyond noise.
//!
//! A change counts where the 95 % interval of the ratio of medians excludes 1 and the ratio itself is beyond a threshold: the
//! first alone would call drifts of half a percent, the second alone would call noise.

use std::fmt;

use serde::Serialize;

use crate::record::{Records, Run};
use crate::stats::{Interval, ratio_interval};
use crate::summary::{Summary, Timing};

/// The least change that is called one: 3 %.
pub const THRESHOLD: f64 = 0.03;

/// Two sets of records, cell by cell and variant by variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Differences in the circumstances, which a reader has to know of.
    pub notes: Vec<String>,
    /// The least relative change that is called one.
    pub threshold: f64,
    /// In the order of tables.
    pub changes: Vec<Change>,
}

/// What became of one cell of one variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The cell's id.
    pub cell: String,
    /// The variant.
    pub variant: String,
    /// The second records' machine, or the first's where those lack it.
    pub machine: String,
    /// Median before, milliseconds, where there is one.
    pub before_ms: Option<f64>,
    /// Median after.
    pub after_ms: Option<f64>,
    /// After over before: above 1 is slower.
    pub ratio: Option<f64>,
    /// Where the ratio lies with 95 % confidence.
    pub interval: Option<Interval>,
    /// What to make of it.
    pub verdict: Verdict,
}

/// What to make of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Slower beyond noise.
    Slower,
    /// Measured before, failed now.
    Fails,
    /// Faster beyond noise.
    Faster,
    /// Failed before, measured now.
    Works,
    /// No change beyond noise.
    Same,
    /// Only in the second records.
    New,
    /// Only in the first records.
    Gone,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slower => "slower",
            Self::Fails => "fails now",
            Self::Faster => "faster",
            Self::Works => "works now",
            Self::Same => "same",
            Self::New => "new",
            Self::Gone => "gone",
        })
    }
}

impl Comparison {
    /// Whether anything became slower, or fails that did not.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.count(Verdict::Slower) + self.count(Verdict::Fails) > 0
    }

    /// How many cells have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }
}

/// Compares `before` with `after`; `threshold` is the least relative change that is called one ([`THRESHOLD`]).
///
/// Measurements of the same machine are compared; where the two share none and each has one, those of the two machines are, and a
/// note says so.
#[must_use]
pub fn compare(before: &Records, after: &Records, threshold: f64) -> Comparison {
    let (a, b) = (Summary::new(before), Summary::new(after));
    let shared = a.machines().iter().any(|machine| b.machines().contains(machine));
    let across = !shared && a.machines().len() == 1 && b.machines().len() == 1;
    let (found_a, found_b) = (found(&a), found(&b));
    let same = |x: &Found, y: &Found| x.cell == y.cell && x.variant == y.variant && (across || x.machine == y.machine);
    let both = found_b.iter().map(|y| change(found_a.iter().find(|x| same(x, y)), Some(y), threshold));
    let gone = found_a.iter().filter(|x| !found_b.iter().any(|y| same(x, y)));
    let changes = both.chain(gone.map(|x| change(Some(x), None, threshold))).flatten().collect();
    Comparison { notes: notes(&a, &b), threshold, changes }
}

/// One cell of one series, measured or failed.
struct Found<'a> {
    cell: &'a str,
    variant: String,
    machine: &'a str,
    timing: Option<&'a Timing>,
}

fn found(summary: &Summary) -> Vec<Found<'_>> {
    let all = (0..summary.cells.len()).flat_map(|cell| (0..summary.series.len()).map(move |series| (cell, series)));
    let tried =
        all.filter(|&(cell, series)| summary.timing(cell, series).is_some() || summary.failure(cell, series).is_some());
    let found = |(cell, series): (usize, usize)| Found {
        cell: &summary.cells[cell].id,
        variant: summary.series[series].variant.to_string(),
        machine: &summary.series[series].machine,
        timing: summary.timing(cell, series),
    };
    tried.map(found).collect()
}

fn change(before: Option<&Found>, after: Option<&Found>, threshold: f64) -> Option<Change> {
    let either = after.or(before)?;
    let (old, new) = (before.and_then(|found| found.timing), after.and_then(|found| found.timing));
    let pair = old.zip(new);
    let ratio = pair.map(|(old, new)| new.median_ms / old.median_ms);
    let interval = pair.and_then(|(old, new)| ratio_interval(&[(&new.samples, &old.samples)]));
    let beyond_noise = interval.is_some_and(|interval| !interval.contains(1.0));
    let verdict = match (before, after, old, new) {
        (None, ..) => Verdict::New,
        (_, None, ..) => Verdict::Gone,
        (_, _, Some(_), None) => Verdict::Fails,
        (_, _, None, Some(_)) => Verdict::Works,
        _ if beyond_noise && ratio.is_some_and(|ratio| ratio >= 1.0 + threshold) => Verdict::Slower,
        _ if beyond_noise && ratio.is_some_and(|ratio| ratio <= 1.0 / (1.0 + threshold)) => Verdict::Faster,
        _ => Verdict::Same,
    };
    Some(Change {
        cell: either.cell.into(),
        variant: either.variant.clone(),
        machine: either.machine.into(),
        before_ms: old.map(|timing| timing.median_ms),
        after_ms: new.map(|timing| timing.median_ms),
        ratio,
        interval,
        verdict,
    })
}

fn notes(before: &Summary, after: &Summary) -> Vec<String> {
    let of_runs = |of: fn(&Run) -> Vec<String>| move |summary: &Summary| summary.runs.iter().flat_map(of).collect();
    let golden = |summary: &Summary| summary.timings.iter().map(|timing| timing.golden.clone()).collect();
    let machines = |summary: &Summary| summary.machines().into_iter().map(String::from).collect();
    let peer = |run: &Run| run.peers.values().map(|peer| format!("{} {}", peer.title, peer.version)).collect();
    let weights = |run: &Run| run.checkpoints.iter().map(|(model, hash)| format!("{model} {hash}")).collect();
    let mut notes = Vec::new();
    let mut note = |what: &str, of: &dyn Fn(&Summary) -> Vec<String>| {
        let [old, new] = [before, after].map(|summary| {
            let mut values = of(summary);
            values.sort_unstable();
            values.dedup();
            if values.is_empty() { "none".into() } else { values.join(", ") }
        });
        if old != new {
            notes.push(format!("{what}: {old}; now {new}"));
        }
    };
    note("machine", &machines);
    note("plan", &of_runs(|run| vec![run.plan.clone()]));
    note("version", &of_runs(|run| vec![run.version.clone()]));
    note("commit", &of_runs(|run| vec![run.commit.clone().unwrap_or_else(|| "unknown".into())]));
    note("engines", &of_runs(peer));
    note("weights", &of_runs(weights));
    note("golden values", &golden);
    notes
}
