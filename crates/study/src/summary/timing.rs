//! What one series reached in one cell: quantiles of its samples, rates, the share of the machine's limit, its error.

use serde::Serialize;

use super::Series;
use crate::record::{Cell, Limits, Measured, Work};
use crate::stats::{Interval, Samples};

/// Nanoseconds in a millisecond.
const MILLI: f64 = 1e6;

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// Place in [`super::Summary::cells`].
    pub cell: usize,
    /// Place in [`super::Summary::series`].
    pub series: usize,
    /// All samples of the host's time, milliseconds.
    #[serde(skip)]
    pub samples: Samples,
    /// How many samples there are.
    pub count: usize,
    /// From how many processes.
    pub processes: usize,
    /// How many of them lie beyond the far fences; none was dropped.
    pub outliers: usize,
    /// Median, milliseconds: from inputs on the host to the result on the host.
    pub median_ms: f64,
    /// Where the median lies with 95 % confidence; `None` of a single sample.
    pub interval_ms: Option<Interval>,
    /// 90th percentile, milliseconds.
    pub p90_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// Median of the device's own time, milliseconds, where the engine tells.
    pub device_ms: Option<f64>,
    /// Real tokens, without padding; of models.
    pub tokens_per_second: Option<f64>,
    /// Sequences; of models.
    pub sequences_per_second: Option<f64>,
    /// 10^9 floating point operations a second, where the cell has products.
    pub gflops: Option<f64>,
    /// 10^9 bytes a second, of those that have to be moved at least once.
    pub gigabytes_per_second: Option<f64>,
    /// The least time this machine needs, by its own measured limits, over the time taken: 1 is the limit.
    pub share_of_limit: Option<f64>,
    /// The largest difference from the golden values, over all processes.
    pub max_abs: f64,
    /// The same over the largest golden value.
    pub relative_error: Option<f64>,
    /// The least cosine of two rows, over all processes.
    pub min_cosine: f64,
    /// Whose values it was compared with.
    pub golden: String,
    /// Median over processes of the seconds to load the checkpoint.
    pub load_seconds: Option<f64>,
    /// The most memory of any process, bytes.
    pub peak_memory: Option<u64>,
    /// Median over processes of the joules for one iteration.
    pub joules: Option<f64>,
    /// What the engine said of how it ran.
    pub detail: String,
}

impl Timing {
    /// `None` where nothing was measured.
    pub(super) fn new(
        at: usize,
        by: usize,
        cell: &Cell,
        series: &Series,
        limits: Option<&Limits>,
        measured: &[&Measured],
    ) -> Option<Self> {
        let last = *measured.last()?;
        let samples = samples(measured.iter().map(|m| &m.host_ns))?;
        let device = samples_of_all(measured.iter().map(|m| m.device_ns.as_ref()));
        let median_ms = samples.median();
        let seconds = median_ms / 1e3;
        let (tokens, sequences) = match cell.work {
            Work::Model { tokens, batch, .. } => (Some(tokens as f64), Some(batch as f64)),
            Work::Operation { .. } => (None, None),
        };
        let rate = |amount: f64| amount / seconds;
        let some = |amount: u64| (amount > 0).then_some(amount as f64);
        let max_abs = greatest(measured.iter().map(|m| m.check.max_abs));
        let largest = greatest(measured.iter().map(|m| m.check.largest));
        Some(Self {
            cell: at,
            series: by,
            count: samples.sorted().len(),
            processes: samples.processes(),
            outliers: samples.outliers(),
            median_ms,
            interval_ms: samples.median_interval(),
            p90_ms: samples.quantile(0.9),
            p99_ms: samples.quantile(0.99),
            device_ms: device.map(|samples| samples.median()),
            tokens_per_second: tokens.map(rate),
            sequences_per_second: sequences.map(rate),
            gflops: some(cell.flops).map(|flops| rate(flops) / 1e9),
            gigabytes_per_second: some(cell.bytes).map(|bytes| rate(bytes) / 1e9),
            share_of_limit: least_seconds(cell, &series.variant.dtype, limits).map(|least| least / seconds),
            max_abs,
            relative_error: (largest > 0.0).then(|| max_abs / largest),
            min_cosine: measured.iter().map(|m| m.check.min_cosine).fold(f64::INFINITY, f64::min),
            golden: last.check.golden.clone(),
            load_seconds: median_of(measured.iter().filter_map(|m| m.load_seconds)),
            peak_memory: measured.iter().filter_map(|m| m.peak_memory).max(),
            joules: median_of(measured.iter().filter_map(|m| m.joules)),
            detail: last.detail.clone(),
            samples,
        })
    }
}

/// The time that no program can beat on this machine: its products at peak, or its bytes at full bandwidth, whichever is longer.
///
/// Bytes are counted in f32; a narrower type moves proportionally fewer at least. `None` where the limits lack the type.
fn least_seconds(cell: &Cell, dtype: &str, limits: Option<&Limits>) -> Option<f64> {
    let limits = limits?;
    let width = match dtype {
        "f32" => 1.0,
        "bf16" | "f16" => 0.5,
        "int8" | "fp8" => 0.25,
        "q4" => 0.125,
        _ => return None,
    };
    let moving = cell.bytes as f64 * width / (limits.gigabytes_per_second * 1e9);
    let computing = match cell.flops {
        0 => 0.0,
        flops => flops as f64 / (limits.gflops.get(dtype)? * 1e9),
    };
    let least = f64::max(moving, computing);
    (least.is_finite() && least > 0.0).then_some(least)
}

/// Milliseconds of all rounds, by process. A clock that did not advance is taken for its least step.
fn samples<'a>(processes: impl Iterator<Item = &'a Vec<Vec<u64>>>) -> Option<Samples> {
    let values = |rounds: &Vec<Vec<u64>>| rounds.iter().flatten().map(|&ns| ns.max(1) as f64 / MILLI).collect();
    Samples::new(processes.map(values).collect())
}

fn samples_of_all<'a>(processes: impl Iterator<Item = Option<&'a Vec<Vec<u64>>>>) -> Option<Samples> {
    samples(processes.collect::<Option<Vec<_>>>()?.into_iter())
}

fn median_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    Samples::new(vec![values.collect()]).map(|samples| samples.median())
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}
