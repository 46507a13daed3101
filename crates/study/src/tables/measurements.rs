//! Everything that was measured, a line for each cell and series: the table to compute with.

use super::{Best, Column, Field, Line, Table, spread};
use crate::number::significant;
use crate::summary::{Summary, Timing, subject};

/// Every timing.
pub(super) fn table(summary: &Summary) -> Table {
    let text = ["cell", "machine", "engine", "mode", "device", "type"].map(Column::text);
    let numbers = [
        "median ms",
        "95 % low",
        "95 % high",
        "p90 ms",
        "p99 ms",
        "device ms",
        "samples",
        "processes",
        "far out",
        "tokens/s",
        "sequences/s",
        "GFLOP/s",
        "GB/s",
        "% of limit",
        "max abs error",
        "relative error",
        "least cosine",
        "load s",
        "peak memory MiB",
        "joules",
    ];
    let columns = text.into_iter().chain(numbers.map(Column::number)).chain([Column::text("how it ran")]);
    Table {
        id: "measurements".into(),
        title: "All measurements".into(),
        note: "All samples of all processes count; none was dropped. The limit is the machine's own, measured: products at peak \
               or the least bytes at full bandwidth, whichever takes longer. Errors are against the golden values."
            .into(),
        long: true,
        best: Best::None,
        columns: columns.collect(),
        lines: summary.timings.iter().map(|timing| line(summary, timing)).collect(),
    }
}

fn line(summary: &Summary, timing: &Timing) -> Line {
    let (cell, series) = (&summary.cells[timing.cell], &summary.series[timing.series]);
    let variant = &series.variant;
    let names = [&cell.id, &series.machine, &variant.peer, &variant.mode, &variant.device, &variant.dtype];
    let spreads = [
        timing.interval_ms.map(|interval| interval.low),
        timing.interval_ms.map(|interval| interval.high),
        Some(timing.p90_ms),
        Some(timing.p99_ms),
        timing.device_ms,
    ];
    let rates = [
        timing.tokens_per_second,
        timing.sequences_per_second,
        timing.gflops,
        timing.gigabytes_per_second,
        timing.share_of_limit.map(|share| 100.0 * share),
        Some(timing.max_abs),
        timing.relative_error,
    ];
    let costs = [timing.load_seconds, timing.peak_memory.map(|bytes| bytes as f64 / (1 << 20) as f64), timing.joules];
    let mut fields = names.map(Field::text).to_vec();
    fields.push(Field::Number { value: timing.median_ms, text: significant(timing.median_ms), detail: spread(timing) });
    fields.extend(spreads.map(Field::known));
    fields.extend([timing.count, timing.processes, timing.outliers].map(Field::whole));
    fields.extend(rates.map(Field::known));
    // Three digits would make 1 of every cosine that matters.
    let (value, text) = (timing.min_cosine, format!("{:.6}", timing.min_cosine));
    fields.push(Field::Number { value, text, detail: String::new() });
    fields.extend(costs.map(Field::known));
    fields.push(Field::text(&timing.detail));
    Line { subject: Some(subject(cell).into()), series: Some(timing.series), total: false, fields }
}
