//! Tables: one file for each, one row each in [`all`]. What they hold comes from the summary; `write.rs` makes Markdown, CSV and
//! plain text of any of them, and the page shows the same.

mod environment;
mod failures;
mod leads;
mod measurements;
mod models;
mod operations;
mod published;
mod speedups;
mod write;

use serde::Serialize;

pub(crate) use write::inline;
pub use write::{csv, markdown, plain};

use crate::Result;
use crate::number::{count, significant};
use crate::summary::{Failed, Kind, Series, Summary, Timing};

/// A table, ready to be written in any format.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Its file's name without the ending.
    pub id: String,
    /// What stands above it.
    pub title: String,
    /// How it is to be read.
    pub note: String,
    /// Whether it is too long for the Markdown report; CSV and the page have it.
    pub long: bool,
    /// Which of the numbers that series have in a line is the best.
    pub best: Best,
    /// What its columns are.
    pub columns: Vec<Column>,
    /// As many fields each as there are columns.
    pub lines: Vec<Line>,
}

/// Which number of a line is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Best {
    /// Numbers of a line are of different things.
    None,
    /// Times.
    Least,
    /// Rates.
    Greatest,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// With the unit.
    pub title: String,
    /// Whether it holds numbers.
    pub numeric: bool,
    /// The series it is of, where it is of one.
    pub series: Option<usize>,
}

/// A line, and what a reader may choose it by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The model or operation it is about, where it is about one.
    pub subject: Option<String>,
    /// The series it is of, where it is of one.
    pub series: Option<usize>,
    /// Whether it sums up the lines above.
    pub total: bool,
    /// One for each column.
    pub fields: Vec<Field>,
}

/// What stands where a line meets a column.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A number.
    Number {
        /// As it is.
        value: f64,
        /// As it is read.
        text: String,
        /// What more there is to say: an interval, how many samples.
        detail: String,
    },
    /// Words.
    Text(String),
    /// There is no number, and here is why: never a hole.
    Missing {
        /// `failed: verify`, `not run`.
        why: String,
        /// The whole message, if there is one.
        detail: String,
    },
}

impl Field {
    /// A number with three digits.
    fn number(value: f64) -> Self {
        Self::Number { value, text: significant(value), detail: String::new() }
    }

    /// A number that may not be known.
    fn known(value: Option<f64>) -> Self {
        value.map_or_else(|| Self::missing("not known"), Self::number)
    }

    /// A whole number, with all its digits.
    fn whole(value: usize) -> Self {
        Self::Number { value: value as f64, text: value.to_string(), detail: String::new() }
    }

    fn missing(why: &str) -> Self {
        Self::Missing { why: why.into(), detail: String::new() }
    }

    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A median with its interval; or why there is none.
    fn timing(timing: Option<&Timing>, failure: Option<&Failed>) -> Self {
        match (timing, failure) {
            (Some(timing), _) => {
                Self::Number { value: timing.median_ms, text: significant(timing.median_ms), detail: spread(timing) }
            }
            (None, Some(failed)) => {
                Self::Missing { why: format!("failed: {}", failed.stage), detail: failed.message.clone() }
            }
            (None, None) => Self::missing("not run"),
        }
    }
}

impl Column {
    fn text(title: &str) -> Self {
        Self { title: title.into(), numeric: false, series: None }
    }

    fn number(title: &str) -> Self {
        Self { title: title.into(), numeric: true, series: None }
    }

    fn of(place: usize, series: &Series) -> Self {
        Self { title: series.label.clone(), numeric: true, series: Some(place) }
    }
}

/// The tables to show when a run is over: whole encoders, this program against the fastest other engine, and how many times as
/// fast as the baseline each engine was.
#[must_use]
pub fn at_a_glance(summary: &Summary) -> Vec<Table> {
    let kinds = [Kind::Characters, Kind::Tokens, Kind::Ragged];
    let mut tables: Vec<Table> = kinds.iter().map(|kind| models::table(summary, kind)).collect();
    tables.push(leads::table(summary));
    tables.push(speedups::table(summary));
    tables.retain(|table| !table.lines.is_empty());
    tables
}

/// Every table that has something to say.
///
/// # Errors
/// None with the published numbers this program is built with.
pub fn all(summary: &Summary) -> Result<Vec<Table>> {
    let mut tables = vec![
        models::table(summary, &Kind::Characters),
        published::models(summary)?,
        models::table(summary, &Kind::Tokens),
        models::table(summary, &Kind::Ragged),
        leads::table(summary),
        speedups::table(summary),
        operations::table(summary, "published"),
        published::operations(summary)?,
        operations::table(summary, "encoder"),
        failures::table(summary),
        environment::runs(summary),
        environment::peers(summary),
        measurements::table(summary),
    ];
    tables.retain(|table| !table.lines.is_empty());
    Ok(tables)
}

/// `95 %: 1.20 to 1.31 ms; 30 samples of 3 processes, 1 far out (kept)`
fn spread(timing: &Timing) -> String {
    let interval = timing.interval_ms.map_or_else(
        || "one sample: no interval".into(),
        |interval| format!("95 %: {} to {} ms", significant(interval.low), significant(interval.high)),
    );
    let outliers = if timing.outliers > 0 { format!(", {} far out (kept)", timing.outliers) } else { String::new() };
    let processes = if timing.processes == 1 { "1 process".into() } else { format!("{} processes", timing.processes) };
    format!("{interval}; {} of {processes}{outliers}", count(timing.count, "sample"))
}
