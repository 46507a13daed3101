//! Lines of models in panels of engines: what the paper's figures 3 and 4 have in common.

use super::{Axis, Body, Chart, Key, PALETTE, PUBLISHED, Panel, Point, Trace, grid, subtitle};
use crate::Result;
use crate::number::{count, significant};
use crate::record::{Cell, Length};
use crate::summary::Summary;
use crate::summary::published::{self, published};

/// What time is drawn against.
pub(super) struct Against {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What is averaged, and its unit.
    pub(super) mean: &'static str,
    /// The unit of x, given the lengths that occur.
    pub(super) unit: fn(&[Length]) -> &'static str,
    /// x of a cell.
    pub(super) value: fn(&Cell) -> Option<usize>,
    /// The published lines with the same x.
    pub(super) published: published::Axis,
}

/// A panel for each series; the paper's own line stands in one more.
pub(super) fn chart(summary: &Summary, against: &Against) -> Result<Option<Chart>> {
    let kind = grid(summary);
    let cells: Vec<usize> = summary.measured(&kind).collect();
    let models = summary.subjects(&kind);
    let key = |(place, (model, _)): (usize, &(&str, Vec<usize>))| Key {
        label: (*model).into(),
        colour: place % PALETTE.len(),
        series: None,
        subject: Some((*model).into()),
    };
    let mut keys: Vec<Key> = models.iter().enumerate().map(key).collect();
    let panel = |series: usize| Panel {
        title: summary.series[series].label.clone(),
        series: Some(series),
        traces: models
            .iter()
            .enumerate()
            .map(|(key, (model, cells))| trace(key, points(summary, against, cells, series, model)))
            .filter(|trace| !trace.points.is_empty())
            .collect(),
    };
    let mut panels: Vec<Panel> = summary.series_of(&cells).into_iter().map(panel).collect();
    panels.retain(|panel| !panel.traces.is_empty());
    if kind == crate::summary::Kind::Characters && !panels.is_empty() {
        panels.extend(published_panel(against, &mut keys)?);
    }
    let all = || panels.iter().flat_map(|panel| panel.traces.iter().flat_map(|trace| trace.points.iter()));
    let unit = (against.unit)(&summary.lengths(&cells));
    let x = Axis::log(unit, all().map(|point| point.x), false);
    let x = x.map(|axis| {
        axis.at(cells.iter().filter_map(|&c| (against.value)(&summary.cells[c])).map(|v| v as f64).collect())
    });
    let Some((x, y)) = x.zip(Axis::log(against.mean, all().map(|point| point.y), false)) else { return Ok(None) };
    Ok(Some(Chart {
        id: against.id.into(),
        title: against.title.into(),
        subtitle: subtitle(summary),
        note: "Both axes logarithmic, the same in every panel; means of medians, only where every cell was measured. The published \
               panel is the paper's, from another machine: texts padded with spaces (D4), BERT with a masked-LM head (D5)."
            .into(),
        keys,
        body: Body::Panels { x, y, panels, reference: None },
    }))
}

fn trace(key: usize, points: Vec<Point>) -> Trace {
    Trace { key, joined: true, points, label: None }
}

/// The mean at each x that `series` measured all cells of.
fn points(summary: &Summary, against: &Against, cells: &[usize], series: usize, model: &str) -> Vec<Point> {
    let mut values: Vec<usize> = cells.iter().filter_map(|&cell| (against.value)(&summary.cells[cell])).collect();
    values.sort_unstable();
    values.dedup();
    let point = |value: usize| {
        let at = |cell: &usize| (against.value)(&summary.cells[*cell]) == Some(value);
        let cells: Vec<usize> = cells.iter().copied().filter(at).collect();
        let y = summary.mean_ms(&cells, series)?;
        let detail = format!("{model} at {value}: {} ms, mean of {}", significant(y), count(cells.len(), "cell"));
        Some(Point { x: value as f64, y, subject: Some(model.into()), detail })
    };
    values.into_iter().filter_map(point).collect()
}

fn published_panel(against: &Against, keys: &mut Vec<Key>) -> Result<Option<Panel>> {
    let lines: Vec<_> = published()?.into_iter().flat_map(|source| source.models).collect();
    let mut traces = Vec::new();
    for line in lines.iter().filter(|line| line.axis == against.published) {
        let known = keys.iter().position(|key| key.subject.as_ref() == Some(&line.model));
        let key = known.unwrap_or_else(|| {
            keys.push(Key {
                label: line.model.clone(),
                colour: PUBLISHED,
                series: None,
                subject: Some(line.model.clone()),
            });
            keys.len() - 1
        });
        let point = |&(x, y): &(usize, f64)| Point {
            x: x as f64,
            y,
            subject: Some(line.model.clone()),
            detail: format!(
                "published: {} at {x}: {y} ms, {}, {}; has defect {}",
                line.model,
                line.device,
                line.runner,
                line.defect()
            ),
        };
        traces.push(trace(key, line.points.iter().map(point).collect()));
    }
    let title = lines.first().map(|line| format!("published: {}, {}", line.device, line.runner));
    Ok(title.filter(|_| !traces.is_empty()).map(|title| Panel { title, series: None, traces }))
}
