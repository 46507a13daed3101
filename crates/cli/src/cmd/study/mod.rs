//! `mlxt study`: the benchmark study. Each file turns its arguments into one call of `mlxt-study`.

mod compare;
mod merge;
mod peers;
mod report;
mod run;
mod setup;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use mlxt_study::peers::Home;

use crate::args::Verbosity;

/// Arguments of `mlxt study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(subcommand)]
    command: StudyCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum StudyCommand {
    /// Measure a plan: quick, paper, precision, cpu, ragged, gpu, full, or a file
    Run(run::RunArgs),
    /// Tables, figures and a page of what was measured
    Report(report::ReportArgs),
    /// What became slower or faster beyond noise from one set of records to another
    Compare(compare::CompareArgs),
    /// Put the records of several machines into one file
    Merge(merge::MergeArgs),
    /// Which engines can take part here, and why the others cannot
    Peers(peers::PeersArgs),
    /// Install what an engine needs into an environment of its own
    Setup(setup::SetupArgs),
}

/// Does it.
pub(crate) fn run(args: StudyArgs, verbosity: Verbosity) -> Result<()> {
    match args.command {
        StudyCommand::Run(args) => run::run(args, verbosity),
        StudyCommand::Report(args) => report::run(&args, verbosity),
        StudyCommand::Compare(args) => compare::run(args),
        StudyCommand::Merge(args) => merge::run(&args),
        StudyCommand::Peers(args) => peers::run(args),
        StudyCommand::Setup(args) => setup::run(&args, verbosity),
    }
}

/// Where the study keeps what it makes: `MLXT_STUDY_HOME`, or a folder in the user's cache.
fn home() -> Result<Home> {
    let cache = || {
        let xdg = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
        xdg.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
    };
    let folder = match std::env::var_os("MLXT_STUDY_HOME").filter(|v| !v.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => cache().context("no home folder: set MLXT_STUDY_HOME")?.join("mlx-transformers").join("study"),
    };
    let folder = std::path::absolute(&folder).with_context(|| folder.display().to_string())?;
    Ok(Home { folder, program: std::env::current_exe().context("the program's own path")? })
}

/// Threads of every engine: as asked for, or all.
fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
