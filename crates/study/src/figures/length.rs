//! Figure 3 of the paper: time against input length, a line for each model, a panel for each engine.

use super::Chart;
use super::lines::{Against, chart as lines};
use crate::Result;
use crate::record::Length;
use crate::summary::published::Axis as Published;
use crate::summary::{Summary, length};

/// The mean over batch sizes.
pub(super) fn chart(summary: &Summary) -> Result<Option<Chart>> {
    lines(
        summary,
        &Against {
            id: "length",
            title: "Time against input length",
            mean: "mean over batch sizes, ms",
            unit: |cells| {
                if cells.iter().any(|length| matches!(length, Length::Characters(_))) { "characters" } else { "tokens" }
            },
            value: |cell| length(cell).and_then(Length::size),
            published: Published::Characters,
        },
    )
}
