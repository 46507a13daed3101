//! What a figure shows, without how it is drawn: `rows.rs` and `panels.rs` lay it out for files, the page's script for the screen.

use serde::Serialize;

use crate::number::significant;
use crate::stats::Interval;

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chart {
    /// Its file's name without the ending.
    pub id: String,
    /// What it says.
    pub title: String,
    /// Machines and dates.
    pub subtitle: String,
    /// How it is to be read.
    pub note: String,
    /// What colours stand for; marks name their key by its place.
    pub keys: Vec<Key>,
    /// The marks.
    pub body: Body,
}

/// What a colour stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// In the legend, or at the mark itself.
    pub label: String,
    /// Place in the palette; [`PUBLISHED`] is grey.
    pub colour: usize,
    /// The series it is of, where it is of one.
    pub series: Option<usize>,
    /// The model or operation it is about, where it is about one.
    pub subject: Option<String>,
}

/// The two kinds of figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Body {
    /// Horizontal bars or dots in groups, one below the other.
    Rows {
        /// Along the bars.
        axis: Axis,
        /// From top to bottom.
        groups: Vec<Group>,
        /// Whether values are dots, which may lie on both sides of `reference`, and not bars from the axis' start.
        dots: bool,
        /// A value to draw a line at.
        reference: Option<f64>,
    },
    /// Points in small coordinate systems with the same axes.
    Panels {
        /// To the right.
        x: Axis,
        /// Upwards.
        y: Axis,
        /// Row by row.
        panels: Vec<Panel>,
        /// A value of y to draw a line at.
        reference: Option<f64>,
    },
}

/// Bars that belong together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// To their left.
    pub label: String,
    /// The model or operation they are about, where they are about one.
    pub subject: Option<String>,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar or dot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// Place in [`Chart::keys`].
    pub key: usize,
    /// Its length; `None` where there is no value, and `text` says why.
    pub value: Option<f64>,
    /// Where the value lies with 95 % confidence.
    pub interval: Option<Interval>,
    /// Next to it.
    pub text: String,
    /// When one asks for more.
    pub detail: String,
}

/// One coordinate system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// The series it is of, where it is of one.
    pub series: Option<usize>,
    /// Its lines or clouds.
    pub traces: Vec<Trace>,
}

/// Points of one colour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// Place in [`Chart::keys`].
    pub key: usize,
    /// Whether a line joins them.
    pub joined: bool,
    /// Ascending in x where joined.
    pub points: Vec<Point>,
    /// Written next to its last point.
    pub label: Option<String>,
}

/// A point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards.
    pub y: f64,
    /// The model or operation it is about, where it is about one.
    pub subject: Option<String>,
    /// When one asks for more.
    pub detail: String,
}

/// An axis: all values shown lie in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Axis {
    /// With the unit.
    pub title: String,
    /// Whether equal steps are equal factors.
    pub log: bool,
    /// Its first value.
    pub from: f64,
    /// Its last value.
    pub to: f64,
    /// Where it is written what.
    pub ticks: Vec<Tick>,
}

/// A value written on an axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tick {
    /// The value.
    pub at: f64,
    /// As it is written.
    pub text: String,
}

/// The colour of what was not measured here.
pub const PUBLISHED: usize = usize::MAX;

/// Told apart with any kind of colour vision, on white and on black (after Okabe and Ito, darkened where needed).
pub const PALETTE: [&str; 10] =
    ["#0077bb", "#e07b00", "#009e73", "#cc3311", "#9467bd", "#33a9dd", "#a88a00", "#d0609a", "#5b6770", "#6b8e23"];

impl Axis {
    /// A logarithmic axis around `values`, from whole powers of ten where `whole`; `None` without values above zero.
    pub(super) fn log(title: &str, values: impl Iterator<Item = f64>, whole: bool) -> Option<Self> {
        let (low, high) = ends(values.filter(|value| *value > 0.0))?;
        let margin = f64::max(1.15, (high / low).powf(0.06));
        let power = |value: f64| 10_f64.powf(value.log10().floor());
        let from = if whole { power(low / 1.3) } else { low / margin };
        let to = high * margin;
        // Parts of each decade where decades alone are too few.
        let steps: &[f64] = match to / from {
            few if few < 8.0 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            some if some < 50.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        let inside = all.filter(|at| (from * 0.999..=to * 1.001).contains(at));
        let ticks = inside.map(|at| Tick { at, text: plain(at) }).collect();
        Some(Self { title: title.into(), log: true, from, to, ticks })
    }

    /// A linear axis from zero; `None` without values above zero.
    pub(super) fn linear(title: &str, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (_, high) = ends(values.filter(|value| *value > 0.0))?;
        let power = 10_f64.powf((high / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| high / step <= 6.0)?;
        let count = (high * 1.02 / step).ceil() as usize;
        let ticks = (0..=count).map(|i| Tick { at: i as f64 * step, text: plain(i as f64 * step) }).collect();
        Some(Self { title: title.into(), log: false, from: 0.0, to: count as f64 * step, ticks })
    }

    /// An axis that is marked at exactly these values.
    pub(super) fn at(mut self, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        values.dedup();
        self.ticks = values.into_iter().map(|at| Tick { at, text: plain(at) }).collect();
        self
    }

    /// Where a value lies, from 0 at the start to 1 at the end.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (from, to) = (scale(self.from), scale(self.to));
        ((scale(value) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// Ticks are round: `0.01`, `1`, `20`, `1000`, `1e-7`.
fn plain(at: f64) -> String {
    let size = at.abs();
    if size > 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{at:.0e}");
    }
    let text = significant(at);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    finite.fold(None, |ends, value| {
        ends.map_or(Some((value, value)), |(low, high)| Some((value.min(low), value.max(high))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
    }

    #[test]
    fn logarithmic_axes_are_marked_at_decades_or_finer_where_those_are_few() {
        let wide = Axis::log("ms", [0.02, 900.0].into_iter(), true).unwrap();
        assert_eq!(texts(&wide), ["0.01", "0.1", "1", "10", "100", "1000"]);
        let narrow = Axis::log("ms", [1.5, 9.0].into_iter(), false).unwrap();
        assert_eq!(texts(&narrow), ["1.5", "2", "3", "5", "7", "10"]);
        assert_eq!(wide.place(0.01), 0.0);
        assert!((wide.place(1.0) - wide.place(0.1) - (wide.place(0.1) - wide.place(0.01))).abs() < 1e-12);
    }

    #[test]
    fn linear_axes_begin_at_nothing_and_hold_the_largest() {
        let axis = Axis::linear("%", [3.0, 47.0].into_iter()).unwrap();
        assert_eq!(texts(&axis), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!((axis.place(0.0), axis.place(25.0), axis.place(1e9)), (0.0, 0.5, 1.0));
    }

    #[test]
    fn there_is_no_axis_of_nothing() {
        assert_eq!(Axis::log("", [0.0, f64::NAN].into_iter(), true), None);
        assert_eq!(Axis::linear("", std::iter::empty()), None);
        let one = Axis::log("", std::iter::once(5.0), false).unwrap();
        assert!(one.from < 5.0 && 5.0 < one.to && one.place(5.0).is_finite());
    }
}
