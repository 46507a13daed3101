//! What has no times, and why.

use super::{Best, Column, Field, Line, Table};
use crate::summary::{Failed, Summary, subject};

/// A line for each failed process.
pub(super) fn table(summary: &Summary) -> Table {
    let line = |failed: &Failed| {
        let cell = &summary.cells[failed.cell];
        let fields = vec![
            Field::text(&cell.id),
            Field::text(&summary.series[failed.series].label),
            Field::whole(failed.process),
            Field::text(&failed.stage),
            Field::text(&failed.message),
        ];
        Line { subject: Some(subject(cell).into()), series: Some(failed.series), total: false, fields }
    };
    let [cell, engine, stage, message] = ["cell", "engine", "stage", "message"].map(Column::text);
    Table {
        id: "failures".into(),
        title: "Failures".into(),
        note: "Every process that gave no times. Wrong values (stage verify) in any process take the whole cell from that engine."
            .into(),
        long: false,
        best: Best::None,
        columns: vec![cell, engine, Column::number("process"), stage, message],
        lines: summary.failures.iter().map(line).collect(),
    }
}
