//! How many times as fast as the baseline: a dot with its interval for each engine, by model or operation.

use super::{Axis, Bar, Body, Chart, Group, keys, subtitle};
use crate::number::{count, significant};
use crate::summary::{Kind, Speedup, Summary};

/// Of all models, or of the operations of a set.
pub(super) fn chart(summary: &Summary, kind: &Kind) -> Option<Chart> {
    let machines = summary.machines();
    let baselines: Vec<usize> = machines.iter().filter_map(|machine| summary.baseline(kind, machine)).collect();
    let mut by = summary.series_of(&summary.of(kind));
    by.retain(|series| !baselines.contains(series));
    let mut groups = Vec::new();
    for &baseline in &baselines {
        let machine = &summary.series[baseline].machine;
        for (subject, cells) in summary.subjects(kind) {
            let speedups = summary.speedups(baseline, &cells);
            let bars: Vec<Bar> = speedups.iter().filter_map(|speedup| bar(speedup, &by)).collect();
            let label = if machines.len() > 1 { format!("{subject}, {machine}") } else { subject.into() };
            groups.push(Group { label, subject: Some(subject.into()), bars });
        }
    }
    groups.retain(|group| !group.bars.is_empty());
    (!groups.is_empty()).then_some(())?;
    let bars = || groups.iter().flat_map(|group| group.bars.iter());
    let intervals = bars().filter_map(|bar| bar.interval).flat_map(|interval| [interval.low, interval.high]);
    let values = bars().filter_map(|bar| bar.value).chain(intervals).chain([1.0]);
    let (id, what) = match kind {
        Kind::Operations(_) => ("speedup-operations", "Operations"),
        _ => ("speedup-models", "Models"),
    };
    let labels: Vec<&str> = baselines.iter().map(|&series| summary.series[series].label.as_str()).collect();
    let against = labels.join("; ");
    Some(Chart {
        id: id.into(),
        title: format!("{what}: speed-up over {against}"),
        subtitle: subtitle(summary),
        note: "Geometric mean over the cells that both measured, and where it lies with 95 % confidence (bootstrap over processes, \
               then samples). Right of the line is faster."
            .into(),
        keys: keys(summary, &by),
        body: Body::Rows {
            axis: Axis::log(&format!("times as fast as {against}"), values, false)?,
            groups,
            dots: true,
            reference: Some(1.0),
        },
    })
}

fn bar(speedup: &Speedup, by: &[usize]) -> Option<Bar> {
    let text = format!("{}×", significant(speedup.times));
    let interval = speedup.interval.map_or_else(String::new, |interval| {
        format!(", 95 %: {} to {}", significant(interval.low), significant(interval.high))
    });
    let detail = format!("{text}{interval}, {}", count(speedup.cells, "cell"));
    let key = by.iter().position(|&series| series == speedup.series)?;
    Some(Bar { key, value: Some(speedup.times), interval: speedup.interval, text, detail })
}
