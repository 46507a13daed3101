//! What speed costs: each engine's worst error against its time, over all models.

use super::{Axis, Body, Chart, Panel, Point, Trace, keys, subtitle};
use crate::number::{count, significant};
use crate::summary::{Kind, Summary};

/// A point for each series but the golden one, which has no error by definition.
pub(super) fn chart(summary: &Summary) -> Option<Chart> {
    let cells: Vec<usize> = summary.measured(&Kind::Models).collect();
    let by = summary.series_of(&cells);
    let mut baselines = Vec::new();
    let mut traces = Vec::new();
    for machine in summary.machines() {
        let Some(baseline) = summary.baseline(&Kind::Models, machine) else { continue };
        baselines.push(summary.series[baseline].label.as_str());
        for speedup in summary.speedups(baseline, &cells) {
            let of = cells.iter().filter_map(|&cell| summary.timing(cell, speedup.series));
            let errors = of.clone().filter_map(|timing| timing.relative_error);
            let worst = errors.fold(0.0, f64::max);
            let cosine = of.map(|timing| timing.min_cosine).fold(f64::INFINITY, f64::min);
            let label = summary.series[speedup.series].label.clone();
            let (x, error) = (1.0 / speedup.times, significant(worst));
            let detail = format!(
                "{label}: {} of the time, worst error {error} of the largest value, least cosine {cosine:.6}, {}",
                significant(x),
                count(speedup.cells, "cell")
            );
            let key = by.iter().position(|&series| series == speedup.series)?;
            let points = vec![Point { x, y: worst, subject: None, detail }];
            traces.push(Trace { key, joined: false, points, label: Some(label) });
        }
    }
    traces.retain(|trace| trace.points.iter().all(|point| point.y > 0.0));
    let points = || traces.iter().flat_map(|trace| trace.points.iter());
    let (x, y) = (points().map(|point| point.x).chain([1.0]), points().map(|point| point.y));
    let y = Axis::log("worst error over the largest value", y, false)?;
    let x = Axis::log(&format!("time over that of {} (geometric mean)", baselines.join("; ")), x, false)?;
    Some(Chart {
        id: "error".into(),
        title: "Error against time".into(),
        subtitle: subtitle(summary),
        note: "Worst difference from the golden values over all models' cells, relative to the largest of them; both axes \
               logarithmic. Left is faster, below is more exact. An engine without any difference is not shown."
            .into(),
        keys: keys(summary, &by),
        body: Body::Panels {
            x,
            y,
            panels: vec![Panel { title: String::new(), series: None, traces }],
            reference: None,
        },
    })
}
