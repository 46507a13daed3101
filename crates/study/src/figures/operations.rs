//! Figure 1 of the paper: the time of each operation, a bar for each engine. The same of an encoder's operations.

use super::{Axis, Bar, Body, Chart, Group, Key, PUBLISHED, keys, subtitle};
use crate::Result;
use crate::number::significant;
use crate::summary::published::{Operations, published};
use crate::summary::{Kind, Summary};

/// The operations of a set; with the paper's numbers where it has them.
pub(super) fn chart(summary: &Summary, set: &str) -> Result<Option<Chart>> {
    let kind = Kind::Operations(set.into());
    let by = summary.series_of(&summary.of(&kind));
    let mut keys = keys(summary, &by);
    // The first source is the paper; the whole of the other would hide the reader's own.
    let papers = if set == "published" { published()?.swap_remove(0).operations } else { Vec::new() };
    if !papers.is_empty() {
        let label = "published, on other machines".into();
        keys.push(Key { label, colour: PUBLISHED, series: None, subject: None });
    }
    let groups: Vec<Group> = summary
        .subjects(&kind)
        .into_iter()
        .map(|(operation, cells)| {
            let own = by.iter().enumerate().filter_map(|(key, &series)| bar(summary, key, series, &cells));
            let others = papers.iter().filter_map(|of| published_bar(by.len(), of, operation));
            Group { label: operation.into(), subject: Some(operation.into()), bars: own.chain(others).collect() }
        })
        .collect();
    let values = groups.iter().flat_map(|group| group.bars.iter().filter_map(|bar| bar.value));
    let Some(axis) = Axis::log("mean over an operation's cases, ms", values, true) else { return Ok(None) };
    let title = if set == "published" { "Operations: run time" } else { "An encoder's operations: run time" };
    Ok(Some(Chart {
        id: format!("operations-{set}"),
        title: title.into(),
        subtitle: subtitle(summary),
        note: "Mean over an operation's cases of the median of all samples; logarithmic. An engine that lacks a case has no mean, and \
               the figure says how many it has."
            .into(),
        keys,
        body: Body::Rows { axis, groups, dots: false, reference: None },
    }))
}

/// The mean of a series over all `cells`, or how many of them it has; nothing where it was never tried.
pub(super) fn bar(summary: &Summary, key: usize, series: usize, cells: &[usize]) -> Option<Bar> {
    let measured = cells.iter().filter(|&&cell| summary.timing(cell, series).is_some()).count();
    let tried = measured > 0 || cells.iter().any(|&cell| summary.failure(cell, series).is_some());
    let value = summary.mean_ms(cells, series);
    let partial = || format!("{measured} of {} cells", cells.len());
    let text = value.map_or_else(partial, significant);
    let detail = if value.is_some() { format!("{text} ms, mean of {} cells", cells.len()) } else { text.clone() };
    tried.then_some(Bar { key, value, interval: None, text, detail })
}

fn published_bar(key: usize, of: &Operations, operation: &str) -> Option<Bar> {
    let value = *of.values.get(operation)?;
    let defect = of.defect(operation).map_or_else(String::new, |defect| format!(", defect {defect}"));
    let text = format!("{} published: {}, {}{defect}", significant(value), of.device, of.runner);
    Some(Bar { key, value: Some(value), interval: None, detail: format!("{text} (ms)"), text })
}
