//! Lays out horizontal bars or dots in groups: names on the left, an axis above and below, values at the bars' ends.

use super::chart::{Axis, Bar, Chart, Group};
use super::draw::{MARGIN, WIDTH, colour, text_width};
use super::scene::{Anchor, BAND, GRID, INK, MUTED, Scene};

/// Above and below the bars of a group.
const PAD: f64 = 6.0;

/// Adds them below `top` and gives where they end.
pub(super) fn lay(
    scene: &mut Scene,
    chart: &Chart,
    (axis, groups, dots, reference): (&Axis, &[Group], bool, Option<f64>),
    top: f64,
) -> f64 {
    let names = groups.iter().map(|group| text_width(&group.label, 12.0, true)).fold(60.0, f64::max);
    // What is published has long words at bars that are short of the end.
    let measured = |bar: &&Bar| chart.keys.get(bar.key).is_some_and(|key| key.series.is_some());
    let texts = groups.iter().flat_map(|group| group.bars.iter()).filter(measured);
    let room = texts.map(|bar| text_width(&bar.text, 9.5, false)).fold(30.0, f64::max);
    let (left, right) = (MARGIN + names + 14.0, WIDTH - MARGIN - room - 6.0);
    let at = |value: f64| left + axis.place(value) * (right - left);
    let most = groups.iter().map(|group| group.bars.len()).max().unwrap_or(1);
    // Bars are as thick as a page allows, and no thicker than is easy to read.
    let thick = if groups.len() * most > 60 { 9.0 } else { 13.0 };
    let height = |group: &Group| group.bars.len().max(1) as f64 * thick + 2.0 * PAD;
    let start = top + 22.0;
    let end = start + groups.iter().map(height).sum::<f64>();

    let mut y = start;
    for (i, group) in groups.iter().enumerate() {
        if i % 2 == 0 {
            scene.rect((MARGIN - 8.0, y), (WIDTH - 2.0 * MARGIN + 16.0, height(group)), BAND);
        }
        y += height(group);
    }
    for tick in &axis.ticks {
        let x = at(tick.at);
        scene.line(vec![(x, start), (x, end)], 0.5, GRID);
        scene.text((x, start - 9.0), &tick.text, 10.0, MUTED, Anchor::Middle);
        scene.text((x, end + 11.0), &tick.text, 10.0, MUTED, Anchor::Middle);
    }
    if let Some(value) = reference {
        scene.line(vec![(at(value), start), (at(value), end)], 1.0, MUTED);
    }
    let mut y = start;
    for group in groups {
        scene.heading((MARGIN, y + height(group) / 2.0), &group.label, 12.0);
        for (i, bar) in group.bars.iter().enumerate() {
            let middle = y + PAD + (i as f64 + 0.5) * thick;
            let from = at(axis.from.max(f64::MIN_POSITIVE));
            put(scene, chart, bar, dots, (from, middle, thick), &at);
        }
        y += height(group);
    }
    scene.text((f64::midpoint(left, right), end + 29.0), &axis.title, 11.0, MUTED, Anchor::Middle);
    end + 44.0
}

fn put(
    scene: &mut Scene,
    chart: &Chart,
    bar: &Bar,
    dots: bool,
    (from, middle, thick): (f64, f64, f64),
    at: &dyn Fn(f64) -> f64,
) {
    let colour = chart.keys.get(bar.key).map_or(MUTED, colour);
    let size = if thick < 10.0 { 8.5 } else { 9.5 };
    let Some(value) = bar.value else {
        scene.text((from + 4.0, middle), &bar.text, size, colour, Anchor::Start);
        return;
    };
    let mut end = at(value);
    if dots {
        scene.dot((end, middle), 3.5, colour);
        end += 3.0;
    } else {
        scene.rect((from, middle - thick / 2.0 + 0.5), (end - from, thick - 1.0), colour);
    }
    if let Some(interval) = bar.interval {
        let (low, high) = (at(interval.low), at(interval.high));
        let whisker = if dots { colour } else { INK };
        scene.line(vec![(low, middle), (high, middle)], 1.5, whisker);
        end = end.max(high);
    }
    scene.text((end + 4.0, middle), &bar.text, size, INK, Anchor::Start);
}
