//! `mlxt study report RECORDS`: tables, figures and a page, from records alone.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mlxt_study::record::Records;
use mlxt_study::report;

use crate::args::Verbosity;
use crate::say::{note, say};

/// Arguments of `mlxt study report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Record files, or folders of them
    #[arg(value_name = "RECORDS")]
    records: PathBuf,
    /// The folder to write: index.html, report.md, tables as CSV, figures as SVG and PNG
    #[arg(short, long, value_name = "DIR", default_value = "report")]
    output: PathBuf,
}

/// Writes it.
pub(crate) fn run(args: &ReportArgs, verbosity: Verbosity) -> Result<()> {
    let records = Records::read(&args.records)?;
    let written = report::write(&records, &args.output)?;
    if verbosity.verbose {
        for file in &written.files {
            note(file.display());
        }
    }
    say(args.output.join("index.html").display())
}
