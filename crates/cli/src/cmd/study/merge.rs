//! `mlxt study merge`: the records of several machines in one file.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mlxt_study::merge::merge;

use crate::args::new_file;
use crate::say::say;

/// Arguments of `mlxt study merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Record files, or folders of them
    #[arg(value_name = "RECORDS", required = true)]
    records: Vec<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", value_parser = new_file(".jsonl"))]
    output: PathBuf,
}

/// Joins them.
pub(crate) fn run(args: &MergeArgs) -> Result<()> {
    let merged = merge(&args.records, &args.output)?;
    say(format_args!("{} runs, {} rows in {}", merged.runs.len(), merged.rows.len(), args.output.display()))
}
