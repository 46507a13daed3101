//! Real sentences of many lengths: tokens a second, where padding shows.

use super::{Axis, Bar, Body, Chart, Group, keys, subtitle};
use crate::number::significant;
use crate::stats::Interval;
use crate::summary::{Kind, Summary, Timing};

/// A bar for each engine, by model.
pub(super) fn chart(summary: &Summary) -> Option<Chart> {
    let by = summary.series_of(&summary.of(&Kind::Ragged));
    let bar = |(key, timing): (usize, &Timing)| {
        let rate = timing.tokens_per_second?;
        let at = |ms: f64| rate * timing.median_ms / ms;
        let interval = timing.interval_ms.map(|ms| Interval { low: at(ms.high), high: at(ms.low) });
        let sequences = timing.sequences_per_second.map(significant).unwrap_or_default();
        let detail =
            format!("{} tokens/s, {sequences} sentences/s, {} ms", significant(rate), significant(timing.median_ms));
        Some(Bar { key, value: Some(rate), interval, text: significant(rate), detail })
    };
    let mut groups = Vec::new();
    for (model, cells) in summary.subjects(&Kind::Ragged) {
        for cell in cells {
            let timings = by.iter().enumerate().filter_map(|(key, &series)| Some((key, summary.timing(cell, series)?)));
            groups.push(Group {
                label: model.into(),
                subject: Some(model.into()),
                bars: timings.filter_map(bar).collect(),
            });
        }
    }
    let values = groups.iter().flat_map(|group| group.bars.iter().filter_map(|bar| bar.value));
    Some(Chart {
        id: "ragged".into(),
        title: "Real sentences: tokens a second".into(),
        subtitle: subtitle(summary),
        note: "A batch of sentences of many lengths. Only real tokens count: an engine that pads computes on more. Whiskers: 95 %."
            .into(),
        keys: keys(summary, &by),
        body: Body::Rows { axis: Axis::linear("real tokens a second", values)?, groups, dots: false, reference: None },
    })
}
