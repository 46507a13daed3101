//! Figure 2 of the paper: the mean time of each model over its whole grid, a bar for each engine and device.

use super::operations::bar;
use super::{Axis, Body, Chart, Group, grid, keys, subtitle};
use crate::summary::Summary;

/// The models of the grid.
pub(super) fn chart(summary: &Summary) -> Option<Chart> {
    let kind = grid(summary);
    let by = summary.series_of(&summary.of(&kind));
    let group = |(model, cells): (&str, Vec<usize>)| Group {
        label: model.into(),
        subject: Some(model.into()),
        bars: by.iter().enumerate().filter_map(|(key, &series)| bar(summary, key, series, &cells)).collect(),
    };
    let groups: Vec<Group> = summary.subjects(&kind).into_iter().map(group).collect();
    let values = groups.iter().flat_map(|group| group.bars.iter().filter_map(|bar| bar.value));
    Some(Chart {
        id: "models".into(),
        title: "Models: mean inference time".into(),
        subtitle: subtitle(summary),
        note: "Mean over all lengths and batch sizes of the median of all samples. An engine that lacks a cell has no mean, and the \
               figure says how many it has."
            .into(),
        keys: keys(summary, &by),
        body: Body::Rows {
            axis: Axis::linear("mean over lengths and batch sizes, ms", values)?,
            groups,
            dots: false,
            reference: None,
        },
    })
}
