//! What has no times, and why.

use super::{Best, Column, Field, Line, Table};
use crate::summary::{Failed, Summary, subject};

/// A line for each way in which an engine failed in a cell.
pub(super) fn table(summary: &Summary) -> Table {
    let way = |failed: &Failed| (failed.cell, failed.series, failed.stage.clone(), failed.message.clone());
    let line = |same: &[Failed]| {
        let failed = same.first()?;
        let cell = &summary.cells[failed.cell];
        let processes: Vec<String> = same.iter().map(|failed| failed.process.to_string()).collect();
        let fields = vec![
            Field::text(&cell.id),
            Field::text(&summary.series[failed.series].label),
            Field::text(processes.join(", ")),
            Field::text(&failed.stage),
            Field::text(&failed.message),
        ];
        Some(Line { subject: Some(subject(cell).into()), series: Some(failed.series), total: false, fields })
    };
    Table {
        id: "failures".into(),
        title: "Failures".into(),
        note: "Every process that gave no times. Wrong values (stage verify) in any process take the whole cell from that engine."
            .into(),
        long: false,
        best: Best::None,
        columns: ["cell", "engine", "processes", "stage", "message"].map(Column::text).to_vec(),
        lines: summary.failures.chunk_by(|a, b| way(a) == way(b)).filter_map(line).collect(),
    }
}
