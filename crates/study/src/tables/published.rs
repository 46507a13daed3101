//! The reader's own numbers beside those that others published, which are marked as such and with their defects.

use super::{Best, Column, Field, Line, Table, operations::mean};
use crate::Result;
use crate::number::significant;
use crate::record::Length;
use crate::summary::published::{Axis, Operations, published};
use crate::summary::{Kind, Summary, batch, length, subject};

/// Operations: a line for each series, measured or published, and a column for each operation.
pub(super) fn operations(summary: &Summary) -> Result<Table> {
    let kind = Kind::Operations("published".into());
    let subjects = summary.subjects(&kind);
    let mut columns = ["source", "machine", "runner"].map(Column::text).to_vec();
    columns.extend(subjects.iter().map(|(operation, _)| Column::number(operation)));
    let cells: Vec<usize> = summary.measured(&kind).collect();
    let own = summary.series_of(&cells).into_iter().map(|s| {
        let series = &summary.series[s];
        let mut fields = vec![Field::text("measured"), Field::text(&series.machine), Field::text(&series.label)];
        fields.extend(subjects.iter().map(|(_, cells)| mean(summary, cells, s)));
        Line { subject: None, series: Some(s), total: true, fields }
    });
    let mut lines: Vec<Line> = own.collect();
    if !lines.is_empty() {
        for source in published()? {
            lines.extend(source.operations.iter().map(|of| published_line(&subjects, of)));
        }
    }
    Ok(Table {
        id: "operations-beside-published".into(),
        title: "Operations beside published numbers".into(),
        note: "Mean milliseconds over an operation's cases. Lines marked published are the paper's (NVIDIA A10, Apple M1) and \
               mlx-benchmark's averages: other machines, and values that nobody verified. A number in parentheses has the defect \
               named in them, and is of other work than its neighbours."
            .into(),
        long: false,
        best: Best::None,
        columns,
        lines,
    })
}

fn published_line(subjects: &[(&str, Vec<usize>)], of: &Operations) -> Line {
    let mut fields = vec![Field::text("published"), Field::text(&of.device), Field::text(&of.runner)];
    fields.extend(subjects.iter().map(|(operation, _)| match of.values.get(*operation) {
        Some(&value) => marked(value, of.defect(operation)),
        None => Field::missing("not published"),
    }));
    Line { subject: None, series: None, total: false, fields }
}

/// Models: the paper's public points, and the same mean of each series.
pub(super) fn models(summary: &Summary) -> Result<Table> {
    let measured: Vec<usize> = summary.measured(&Kind::Characters).collect();
    let by = summary.series_of(&measured);
    let mut columns = ["model", "mean of the cells with", "published by", "on"].map(Column::text).to_vec();
    columns.push(Column::number("published ms"));
    columns.extend(by.iter().map(|&series| Column::of(series, &summary.series[series])));
    let sources = published()?;
    let points = sources.iter().flat_map(|source| source.models.iter().map(move |line| (source, line)));
    let points = points.flat_map(|(source, line)| line.points.iter().map(move |point| (source, line, point)));
    let mut lines = Vec::new();
    for (source, line, &(value, ms)) in points {
        let chosen = |cell: &usize| {
            let cell = &summary.cells[*cell];
            subject(cell) == line.model
                && match line.axis {
                    Axis::Characters => length(cell) == Some(Length::Characters(value)),
                    Axis::Batch => batch(cell) == Some(value),
                }
        };
        let cells: Vec<usize> = measured.iter().copied().filter(chosen).collect();
        if cells.is_empty() {
            continue;
        }
        let what = match line.axis {
            Axis::Characters => format!("{value} characters"),
            Axis::Batch => format!("batch {value}"),
        };
        let on = format!("{}, {}", line.device, line.runner);
        let mut fields = [&line.model, &what, &source.source, &on].map(Field::text).to_vec();
        fields.push(marked(ms, Some(line.defect())));
        fields.extend(by.iter().map(|&series| mean(summary, &cells, series)));
        lines.push(Line { subject: Some(line.model.clone()), series: None, total: false, fields });
    }
    Ok(Table {
        id: "models-beside-published".into(),
        title: "Models beside published numbers".into(),
        note: "Mean milliseconds over batch sizes (where a length is named) or over lengths (where a batch is named). The \
               published column is from another machine, with the defect named: D4, texts padded with spaces; D5, with a \
               masked-LM head."
            .into(),
        long: false,
        best: Best::None,
        columns,
        lines,
    })
}

fn marked(value: f64, defect: Option<&str>) -> Field {
    let text = significant(value);
    match defect {
        Some(defect) => Field::Number {
            value,
            text: format!("({text} {defect})"),
            detail: format!("published; has defect {defect}"),
        },
        None => Field::Number { value, text, detail: "published".into() },
    }
}
