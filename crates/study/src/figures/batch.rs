//! Figure 4 of the paper: time against batch size, a line for each model, a panel for each engine.

use super::Chart;
use super::lines::{Against, chart as lines};
use crate::Result;
use crate::summary::published::Axis as Published;
use crate::summary::{Summary, batch};

/// The mean over lengths.
pub(super) fn chart(summary: &Summary) -> Result<Option<Chart>> {
    lines(
        summary,
        &Against {
            id: "batch",
            title: "Time against batch size",
            mean: "mean over lengths, ms",
            unit: |_| "sequences at once",
            value: batch,
            published: Published::Batch,
        },
    )
}
