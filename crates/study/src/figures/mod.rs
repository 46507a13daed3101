//! Figures: one file for each, one row each in [`all`]. A figure is first a [`Chart`], which says what is shown; `draw.rs` makes
//! files of it, and the page's script draws the same.
//!
//! Nothing that was not verified is in a chart: charts are made of timings, and failures have none.

mod batch;
mod chart;
mod draw;
mod error;
mod length;
mod lines;
mod models;
mod operations;
mod panels;
mod ragged;
mod roofline;
mod rows;
mod scene;
mod speedup;

pub use chart::{Axis, Bar, Body, Chart, Group, Key, PALETTE, PUBLISHED, Panel, Point, Tick, Trace};
pub(crate) use draw::{REGULAR, SEMIBOLD};
pub use draw::{png, svg};

use crate::Result;
use crate::summary::{Kind, Summary};

/// Every figure that has something to show: the paper's four, then ours.
///
/// # Errors
/// None with the published numbers this program is built with.
pub fn all(summary: &Summary) -> Result<Vec<Chart>> {
    let charts = [
        operations::chart(summary, "published")?,
        models::chart(summary),
        length::chart(summary)?,
        batch::chart(summary)?,
        speedup::chart(summary, &Kind::Models),
        speedup::chart(summary, &Kind::Operations("published".into())),
        operations::chart(summary, "encoder")?,
        roofline::chart(summary),
        error::chart(summary),
        ragged::chart(summary),
    ];
    Ok(charts.into_iter().flatten().collect())
}

/// Machines and days: `AMD EPYC, 2 threads · 2026-11-22`.
fn subtitle(summary: &Summary) -> String {
    let mut days: Vec<&str> = summary.runs.iter().filter_map(|run| run.started.split('T').next()).collect();
    days.sort_unstable();
    days.dedup();
    let days = match days[..] {
        [first, .., last] => format!("{first} to {last}"),
        _ => days.concat(),
    };
    format!("{} · {days}", summary.machines().join("; "))
}

/// A key for each series, in the colour it has in every figure.
fn keys(summary: &Summary, series: &[usize]) -> Vec<Key> {
    let key = |&place: &usize| Key {
        label: summary.series[place].label.clone(),
        colour: place % PALETTE.len(),
        series: Some(place),
        subject: None,
    };
    series.iter().map(key).collect()
}

/// The models' grid: texts cut by characters as in the paper, or by tokens where there are none of those.
fn grid(summary: &Summary) -> Kind {
    let characters = summary.measured(&Kind::Characters).next().is_some();
    if characters { Kind::Characters } else { Kind::Tokens }
}
