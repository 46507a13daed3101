//! Lays out small coordinate systems: in rows, with the same axes, lines labelled at their ends.

use super::chart::{Axis, Chart, Panel, Trace};
use super::draw::{MARGIN, WIDTH, colour, text_width};
use super::scene::{Anchor, GRID, INK, MUTED, Scene};

/// Adds them below `top` and gives where they end.
pub(super) fn lay(
    scene: &mut Scene,
    chart: &Chart,
    (x, y, panels, reference): (&Axis, &Axis, &[Panel], Option<f64>),
    top: f64,
) -> f64 {
    let columns = match panels.len() {
        n @ 0..=3 => n.max(1),
        4 => 2,
        _ => 3,
    };
    let ticks = y.ticks.iter().map(|tick| text_width(&tick.text, 10.0, false)).fold(12.0, f64::max) + 10.0;
    let inner = WIDTH - 2.0 * MARGIN;
    let (width, height) = (inner / columns as f64, if columns == 1 { 420.0 } else { 250.0 });
    scene.text((MARGIN, top + 6.0), &format!("{}  (upwards)", y.title), 11.0, MUTED, Anchor::Start);
    let top = top + 22.0;
    for (i, panel) in panels.iter().enumerate() {
        let origin = (MARGIN + (i % columns) as f64 * width, top + (i / columns) as f64 * height);
        let area = Area {
            left: origin.0 + ticks,
            right: origin.0 + width - 14.0,
            top: origin.1 + 26.0,
            bottom: origin.1 + height - 34.0,
        };
        scene.heading((area.left, origin.1 + 10.0), &fitted(&panel.title, area.right - area.left), 12.0);
        frame(scene, &area, x, y, reference);
        let mut labels = Labels::default();
        for trace in &panel.traces {
            put(scene, chart, trace, &area, (x, y), &mut labels);
        }
        labels.write(scene, &area);
    }
    let rows = panels.len().div_ceil(columns) as f64;
    let end = top + rows * height;
    scene.text((WIDTH / 2.0, end - 2.0), &x.title, 11.0, MUTED, Anchor::Middle);
    end + 12.0
}

/// Where a panel's points lie.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn at(&self, (x, y): (&Axis, &Axis), point: (f64, f64)) -> (f64, f64) {
        let across = self.left + x.place(point.0) * (self.right - self.left);
        (across, self.bottom - y.place(point.1) * (self.bottom - self.top))
    }
}

fn frame(scene: &mut Scene, area: &Area, x: &Axis, y: &Axis, reference: Option<f64>) {
    for tick in &y.ticks {
        let (_, at) = area.at((x, y), (x.from, tick.at));
        scene.line(vec![(area.left, at), (area.right, at)], 0.5, GRID);
        scene.text((area.left - 6.0, at), &tick.text, 10.0, MUTED, Anchor::End);
    }
    for tick in &x.ticks {
        let (at, _) = area.at((x, y), (tick.at, y.from));
        scene.line(vec![(at, area.top), (at, area.bottom)], 0.5, GRID);
        scene.text((at, area.bottom + 11.0), &tick.text, 10.0, MUTED, Anchor::Middle);
    }
    if let Some(value) = reference {
        let (_, at) = area.at((x, y), (x.from, value));
        scene.line(vec![(area.left, at), (area.right, at)], 1.0, MUTED);
    }
}

fn put(scene: &mut Scene, chart: &Chart, trace: &Trace, area: &Area, axes: (&Axis, &Axis), labels: &mut Labels) {
    let colour = chart.keys.get(trace.key).map_or(MUTED, colour);
    let points: Vec<(f64, f64)> = trace.points.iter().map(|point| area.at(axes, (point.x, point.y))).collect();
    if trace.joined && points.len() > 1 {
        scene.line(points.clone(), 2.0, colour);
    }
    for &point in &points {
        scene.dot(point, if trace.joined { 3.0 } else { 3.5 }, colour);
    }
    if let (Some(label), Some(&(x, y))) = (&trace.label, points.last()) {
        labels.0.push((x, y, label.clone()));
    }
}

/// Names of points and where those lie, kept from lying on each other.
#[derive(Default)]
struct Labels(Vec<(f64, f64, String)>);

impl Labels {
    /// From the top down, each right of its point, or left where the edge is near, and below those it would hit.
    fn write(mut self, scene: &mut Scene, area: &Area) {
        const LINE: f64 = 13.0;
        self.0.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut taken: Vec<(f64, f64, f64)> = Vec::new();
        for (x, mut y, text) in self.0 {
            let width = text_width(&text, 10.5, false);
            let from = if x + 8.0 + width > area.right { x - 8.0 - width } else { x + 8.0 };
            let hits = |y: f64| {
                taken.iter().any(|&(left, right, at)| left < from + width && from < right && (at - y).abs() < LINE)
            };
            while hits(y) && y < area.bottom {
                y += 1.0;
            }
            taken.push((from, from + width, y));
            scene.text((from, y), &text, 10.5, INK, Anchor::Start);
        }
    }
}

/// As much of a title as fits.
fn fitted(text: &str, width: f64) -> String {
    if text_width(text, 12.0, true) <= width {
        return text.into();
    }
    let mut kept = text.to_owned();
    while !kept.is_empty() && text_width(&format!("{kept}…"), 12.0, true) > width {
        kept.pop();
    }
    kept + "…"
}
