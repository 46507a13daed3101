//! How near to the machine's limit: the share of it that each cell reaches, against its operations for each byte.

use super::{Axis, Body, Chart, Panel, Point, Trace, keys, subtitle};
use crate::number::significant;
use crate::summary::{Summary, subject};

/// A panel for each series, a point for each cell with products.
pub(super) fn chart(summary: &Summary) -> Option<Chart> {
    let known = |series: usize| summary.timings.iter().any(|t| t.series == series && t.share_of_limit.is_some());
    let by: Vec<usize> = (0..summary.series.len()).filter(|&series| known(series)).collect();
    let panel = |(key, &series): (usize, &usize)| {
        let timings = summary.timings.iter().filter(|timing| timing.series == series);
        let point = |timing: &crate::summary::Timing| {
            let cell = &summary.cells[timing.cell];
            let share = 100.0 * timing.share_of_limit?;
            let ms = significant(timing.median_ms);
            let detail = format!("{}: {} % of the limit, {ms} ms", cell.id, significant(share));
            let x = cell.flops as f64 / cell.bytes as f64;
            let point = Point { x, y: share, subject: Some(subject(cell).into()), detail };
            (x > 0.0 && x.is_finite()).then_some(point)
        };
        let points = timings.filter_map(point).collect();
        let traces = vec![Trace { key, joined: false, points, label: None }];
        Panel { title: summary.series[series].label.clone(), series: Some(series), traces }
    };
    let panels: Vec<Panel> = by.iter().enumerate().map(panel).collect();
    let points = || panels.iter().flat_map(|panel| panel.traces.iter().flat_map(|trace| trace.points.iter()));
    Some(Chart {
        id: "roofline".into(),
        title: "Share of the machine's own limit".into(),
        subtitle: subtitle(summary),
        note: "Each point is a model's or operation's cell with products. The limit is the longer of its products at the measured \
               peak of its type and its least bytes at the measured bandwidth; cells that fit a cache can pass the latter."
            .into(),
        keys: keys(summary, &by),
        body: Body::Panels {
            x: Axis::log("operations for each byte", points().map(|point| point.x), false)?,
            y: Axis::linear("% of the limit", points().map(|point| point.y).chain([100.0]))?,
            panels,
            reference: Some(100.0),
        },
    })
}
