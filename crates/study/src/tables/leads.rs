//! This program against the fastest other engine of each cell.

use super::{Best, Column, Field, Line, Table};
use crate::number::{count, significant};
use crate::record::Length;
use crate::summary::{Kind, Lead, Summary, batch, length};

/// For each model and series of ours a line for each cell, and one for all.
pub(super) fn table(summary: &Summary) -> Table {
    let mut lines = Vec::new();
    for (model, cells) in summary.subjects(&Kind::Models) {
        for ours in summary.ours() {
            let Some(all) = summary.lead(ours, &cells) else { continue };
            let each = all.against.iter().filter_map(|&(cell, _)| summary.lead(ours, &[cell]));
            lines.extend(each.map(|lead| line(summary, model, &lead)));
            if all.against.len() > 1 {
                lines.push(line(summary, model, &all));
            }
        }
    }
    Table {
        id: "leads".into(),
        title: "Against the fastest other engine".into(),
        note: "How many times as fast as the fastest other engine, of those with the same type of weights on the same kind of device. \
               Medians in milliseconds; the share of the machine's limit is of its measured peaks; for several cells the mean \
               is geometric."
            .into(),
        long: false,
        best: Best::None,
        columns: vec![
            Column::text("model"),
            Column::text("length"),
            Column::number("batch"),
            Column::text("ours"),
            Column::number("ms"),
            Column::number("% of limit"),
            Column::text("fastest other"),
            Column::number("its ms"),
            Column::number("times as fast"),
            Column::text("95 %"),
        ],
        lines,
    }
}

fn line(summary: &Summary, model: &str, lead: &Lead) -> Line {
    let series = &summary.series;
    let interval = lead.interval.map_or_else(String::new, |interval| {
        format!("{} to {}", significant(interval.low), significant(interval.high))
    });
    let total = lead.against.len() > 1;
    let [length, batch, ms, share, other, its] = if let [(cell, other)] = lead.against[..] {
        one(summary, lead.ours, cell, other)
    } else {
        let cells = Field::text(count(lead.against.len(), "cell"));
        [cells, blank(), blank(), blank(), Field::text("the fastest of each"), blank()]
    };
    let ours = Field::text(&series[lead.ours].label);
    let (times, interval) = (Field::number(lead.times), Field::text(interval));
    let fields = vec![Field::text(model), length, batch, ours, ms, share, other, its, times, interval];
    Line { subject: Some(model.into()), series: Some(lead.ours), total, fields }
}

/// Length, batch, our median and share of the limit, the other's name and median.
fn one(summary: &Summary, ours: usize, cell: usize, other: usize) -> [Field; 6] {
    let (mine, its) = (summary.timing(cell, ours), summary.timing(cell, other));
    let length = match length(&summary.cells[cell]) {
        Some(Length::Characters(n)) => count(n, "character"),
        Some(Length::Tokens(n)) => count(n, "token"),
        Some(length @ Length::Ragged) => length.to_string(),
        None => String::new(),
    };
    [
        Field::text(length),
        batch(&summary.cells[cell]).map_or_else(blank, Field::whole),
        Field::timing(mine, None),
        Field::known(mine.and_then(|timing| timing.share_of_limit).map(|share| 100.0 * share)),
        Field::text(&summary.series[other].label),
        Field::timing(its, None),
    ]
}

fn blank() -> Field {
    Field::text("")
}
