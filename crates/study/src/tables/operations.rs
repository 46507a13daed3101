//! Operations as mlx-benchmark lays them out: a line for each case, a column for each series, and a mean for each operation.

use super::{Best, Column, Field, Line, Table};
use crate::record::Work;
use crate::summary::{Kind, Summary, subject};

/// The cases of a set.
pub(super) fn table(summary: &Summary, set: &str) -> Table {
    let kind = Kind::Operations(set.into());
    let tried = summary.of(&kind);
    let by = summary.tried(&tried);
    let mut columns = vec![Column::text("operation"), Column::text("case")];
    columns.extend(by.iter().map(|&series| Column::of(series, &summary.series[series])));
    let name = |cell: usize| subject(&summary.cells[cell]);
    let mut lines = Vec::new();
    for cases in tried.chunk_by(|&a, &b| name(a) == name(b)) {
        let operation = name(cases[0]);
        let line = |case: String, total, numbers: Vec<Field>| Line {
            subject: Some(operation.into()),
            series: None,
            total,
            fields: [Field::text(operation), Field::text(case)].into_iter().chain(numbers).collect(),
        };
        for &cell in cases {
            let field = |&s: &usize| Field::timing(summary.timing(cell, s), summary.failure(cell, s));
            lines.push(line(case(&summary.cells[cell].work), false, by.iter().map(field).collect()));
        }
        let cells: Vec<usize> = summary.measured(&kind).filter(|cell| cases.contains(cell)).collect();
        lines.push(line("mean".into(), true, by.iter().map(|&s| mean(summary, &cells, s)).collect()));
    }
    Table {
        id: format!("operations-{set}"),
        title: format!("Operations, {set} cases"),
        note: "Median milliseconds of each case, and the mean of an operation's cases. A mean stands only where every case was \
               measured: over fewer cases it would be of other work."
            .into(),
        long: false,
        best: Best::Least,
        columns,
        lines,
    }
}

/// A mean over all cells; or how many of them there are.
pub(super) fn mean(summary: &Summary, cells: &[usize], series: usize) -> Field {
    let measured = cells.iter().filter(|&&cell| summary.timing(cell, series).is_some()).count();
    let partial = || Field::missing(&format!("{measured} of {}", cells.len()));
    summary.mean_ms(cells, series).map_or_else(partial, Field::number)
}

/// `64x1024x128, axis 0`
fn case(work: &Work) -> String {
    let Work::Operation { dims, axis, .. } = work else { return String::new() };
    let shape = |dims: &Vec<usize>| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let axis = axis.map(|axis| format!("axis {axis}"));
    dims.iter().map(shape).chain(axis).collect::<Vec<_>>().join(", ")
}
