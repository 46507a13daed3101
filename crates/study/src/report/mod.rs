//! The report: every file that a reader gets, made of records alone.
//!
//! The same records always give the same files, byte for byte: there is no clock, no chance and no network in here.
//! `page.rs` is the page, `text.rs` the Markdown, `method.rs` what both say of how it was measured.

mod method;
mod page;
mod text;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::figures::{self, Chart};
use crate::record::Records;
use crate::summary::Summary;
use crate::tables::{self, Table};
use crate::{Error, Result};

/// What [`write()`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// Every file, the page included.
    pub files: Vec<PathBuf>,
    /// How many medians the report holds.
    pub timings: usize,
    /// How many failed processes.
    pub failures: usize,
}

/// A report before it is written.
struct Report {
    summary: Summary,
    tables: Vec<Table>,
    charts: Vec<Chart>,
}

/// The report for programs: `report.json`.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    tables: &'a [Table],
    figures: &'a [Chart],
}

/// Writes `index.html`, `report.md`, `report.json`, a CSV file for each table, and `figures/` as SVG and PNG into the folder `out`, which is
/// made if it is not there. Files of the same names are replaced.
///
/// # Errors
/// The disk's own.
pub fn write(records: &Records, out: &Path) -> Result<Written> {
    let summary = Summary::new(records);
    let report = Report { tables: tables::all(&summary)?, charts: figures::all(&summary)?, summary };
    let json = Json { summary: &report.summary, tables: &report.tables, figures: &report.charts };
    let page = out.join("index.html");
    let mut files = vec![
        (page.clone(), page::html(&report).into_bytes()),
        (out.join("report.md"), text::markdown(&report).into_bytes()),
        (out.join("report.json"), encoded(&json)),
    ];
    for table in &report.tables {
        files.push((out.join(format!("{}.csv", table.id)), tables::csv(table).into_bytes()));
    }
    let folder = out.join("figures");
    for chart in &report.charts {
        files.push((folder.join(format!("{}.svg", chart.id)), figures::svg(chart)?.into_bytes()));
        files.push((folder.join(format!("{}.png", chart.id)), figures::png(chart)?));
    }
    std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    for (path, bytes) in &files {
        std::fs::write(path, bytes).map_err(Error::io("write", path))?;
    }
    Ok(Written {
        page,
        files: files.into_iter().map(|(path, _)| path).collect(),
        timings: report.summary.timings.len(),
        failures: report.summary.failures.len(),
    })
}

/// JSON of what cannot fail to be JSON: no map here has keys that are not strings.
fn encoded(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
