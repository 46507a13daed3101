//! How many times as fast as the baseline each series is, by model and operation.

use super::{Best, Column, Field, Line, Table};
use crate::number::{count, significant};
use crate::summary::{Kind, Speedup, Summary};

/// A line for each machine and subject.
pub(super) fn table(summary: &Summary) -> Table {
    let mut columns = ["of", "baseline"].map(Column::text).to_vec();
    columns.extend(summary.series.iter().enumerate().map(|(place, series)| Column::of(place, series)));
    let mut lines = Vec::new();
    for kind in &[Kind::Models, Kind::Operations("published".into()), Kind::Operations("encoder".into())] {
        for machine in summary.machines() {
            let Some(baseline) = summary.baseline(kind, machine) else { continue };
            for (subject, cells) in summary.subjects(kind) {
                let speedups = summary.speedups(baseline, &cells);
                if speedups.is_empty() {
                    continue;
                }
                let mut fields = vec![Field::text(subject), Field::text(&summary.series[baseline].label)];
                fields.extend((0..summary.series.len()).map(|series| {
                    let found = speedups.iter().find(|speedup| speedup.series == series);
                    let other = if series == baseline { "baseline" } else { "not both" };
                    found.map_or_else(|| Field::missing(other), field)
                }));
                lines.push(Line { subject: Some(subject.into()), series: None, total: false, fields });
            }
        }
    }
    Table {
        id: "speedups".into(),
        title: "Speed-up".into(),
        note: "How many times as fast as the baseline of the same machine: geometric mean over the cells that both measured. The \
               baseline is the engine whose values are the golden ones, where it was timed."
            .into(),
        long: false,
        best: Best::Greatest,
        columns,
        lines,
    }
}

fn field(speedup: &Speedup) -> Field {
    let cells = count(speedup.cells, "cell");
    let detail = speedup.interval.map_or_else(
        || cells.clone(),
        |interval| format!("95 %: {} to {}; {cells}", significant(interval.low), significant(interval.high)),
    );
    Field::Number { value: speedup.times, text: significant(speedup.times), detail }
}
