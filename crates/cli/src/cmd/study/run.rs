//! `mlxt study run PLAN`: measures, shows how far it is, and keeps what was measured when it is stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use mlxt_study::machine;
use mlxt_study::models::Model;
use mlxt_study::peers::Peers;
use mlxt_study::plan::Plan;
use mlxt_study::record::{Outcome, Records, Row};
use mlxt_study::runner::{self, Event, Study, Summary};
use mlxt_study::tables;

use super::{home, threads};
use crate::args::{self, Usage, Verbosity};
use crate::progress::spinner;
use crate::say::{note, say};

/// Arguments of `mlxt study run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// quick, paper, precision, cpu, ragged, gpu, full, or a file of the same form
    #[arg(value_name = "PLAN")]
    plan: String,
    /// The record file; what it holds already is not measured again [default: PLAN-DATE.jsonl here]
    #[arg(short, long, value_name = "FILE", value_parser = args::new_file(".jsonl"))]
    output: Option<PathBuf>,
    /// A real checkpoint for a model of the plan: bert-base=FOLDER (random weights without it)
    #[arg(long, value_name = "MODEL=FOLDER")]
    checkpoint: Vec<String>,
    /// Only these of the plan's variants: PEER/MODE/DEVICE/DTYPE, each a name or *
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Of inputs, random weights and orders
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = |n: &str| args::within(0..=u64::MAX, n))]
    seed: u64,
    /// Threads of each engine [default: all]
    #[arg(long, value_name = "N", value_parser = args::threads)]
    threads: Option<usize>,
    /// End with status 1 if any row failed, not only if all did
    #[arg(long)]
    strict: bool,
    /// Another table of peers
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
}

/// Measures.
pub(crate) fn run(args: RunArgs, verbosity: Verbosity) -> Result<()> {
    let mut plan = Plan::open(&args.plan)?;
    let patterns = args.only.iter().map(|text| text.clone().try_into()).collect::<Result<Vec<_>, String>>();
    let patterns = patterns.map_err(Usage::error)?;
    let peers = match &args.peers {
        Some(path) => Peers::open(path)?,
        None => Peers::built_in()?,
    };
    if !patterns.is_empty() {
        plan.variants = patterns;
    }
    let checkpoints = checkpoints(&args.checkpoint)?;
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let date = machine::utc(started.as_secs());
    let records = args.output.unwrap_or_else(|| format!("{}-{}.jsonl", plan.name, &date[..10]).into());
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(&stop)?;
    let study = Study {
        plan: &plan,
        peers: &peers,
        home: &home()?,
        records,
        checkpoints,
        seed: args.seed,
        threads: threads(args.threads),
        version: (env!("CARGO_PKG_VERSION").into(), option_env!("MLXT_COMMIT").map(str::to_owned)),
        stop,
    };
    let mut shown = Shown::new(verbosity);
    let summary = runner::run(&study, &mut |event| shown.hear(event))?;
    shown.clear();
    finish(&study.records, summary, args.strict, verbosity)
}

/// The folder of each model's checkpoint.
fn checkpoints(texts: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut checkpoints = BTreeMap::new();
    for text in texts {
        let (model, folder) = checkpoint(text)?;
        if checkpoints.insert(model, folder).is_some() {
            return Err(Usage::error(format!("--checkpoint {text}: this model has a folder already: name one")));
        }
    }
    Ok(checkpoints)
}

/// A model's name and the folder of its checkpoint.
fn checkpoint(text: &str) -> Result<(String, PathBuf)> {
    let wrong = || Usage::error(format!("--checkpoint {text}: MODEL=FOLDER is needed"));
    let (model, folder) = text.split_once('=').ok_or_else(wrong)?;
    let model = Model::find(model).map_err(|e| Usage::error(e.to_string()))?;
    let folder = Path::new(folder);
    if !folder.join("config.json").is_file() {
        return Err(Usage::error(format!("{}: there is no config.json in it", folder.display())));
    }
    Ok((model.name.into(), std::path::absolute(folder).with_context(|| folder.display().to_string())?))
}

/// The first Ctrl-C ends the run after the request under way; the second ends the program.
fn stop_on_interrupt(stop: &Arc<AtomicBool>) -> Result<()> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")
}

fn finish(records: &Path, summary: Summary, strict: bool, verbosity: Verbosity) -> Result<()> {
    let Summary { measured, failed, stopped } = summary;
    let path = records.display();
    let mut shown = Ok(());
    if !verbosity.quiet {
        // One that was stopped before it began has made no file.
        let records = if stopped && !records.exists() { Records::default() } else { Records::read(records)? };
        let tables = tables::at_a_glance(&mlxt_study::summary::Summary::new(&records));
        shown = tables.iter().try_for_each(|table| say(tables::plain(table)));
        let how = if stopped { "stopped; run it again to go on" } else { "done" };
        note(format_args!("{how}: {measured} measured, {failed} failed, in {path}"));
        if measured > 0 {
            note(format_args!("tables, figures and a page: mlxt study report {path} -o report"));
        }
    }
    if failed > 0 && (strict || measured == 0) && !stopped {
        bail!("{failed} of {} rows failed: see {path}", measured + failed);
    }
    // Last: a reader that has closed standard output makes no success of rows that failed.
    shown
}

/// What people see while it runs: a bar on a terminal, a line a row with `-v`.
struct Shown {
    verbosity: Verbosity,
    bar: ProgressBar,
    started: Instant,
    rows: u64,
    finished: u64,
}

impl Shown {
    fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, bar: spinner(verbosity), started: Instant::now(), rows: 0, finished: 0 }
    }

    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Doing(what) => {
                self.bar.set_message(what.clone());
                if self.verbosity.verbose {
                    self.say(&what);
                }
            }
            Event::Absent { variant, reason } => {
                if !self.verbosity.quiet {
                    let name = format!("{}/{}/{}", variant.peer, variant.mode, variant.device);
                    self.say(&crate::one_line(&format!("without {name}: {reason}")));
                }
            }
            Event::Begin { rows, done } => {
                (self.rows, self.started) = (rows as u64, Instant::now());
                if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}") {
                    self.bar.set_style(style);
                }
                self.bar.set_length(self.rows);
                if done > 0 && !self.verbosity.quiet {
                    self.say(&format!("{done} rows are there already, {rows} to go"));
                }
            }
            Event::Turn { cell, variant } => self.bar.set_message(format!("{cell}  {variant}  {}", self.left())),
            Event::Row(row) => {
                self.finished += 1;
                self.bar.set_position(self.finished);
                if self.verbosity.verbose || matches!(row.outcome, Outcome::Failed(_)) && !self.verbosity.quiet {
                    self.say(&line(row));
                }
            }
        }
    }

    /// Above the bar, if there is one.
    fn say(&self, what: &str) {
        self.bar.suspend(|| note(what));
    }

    fn left(&self) -> String {
        if self.finished == 0 {
            return String::new();
        }
        let left = self.started.elapsed().as_secs_f64() / self.finished as f64 * (self.rows - self.finished) as f64;
        format!("{} left", HumanDuration(Duration::from_secs_f64(left)))
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(row: &Row) -> String {
    let name = format!("{}  {}", row.cell.id, row.variant);
    match &row.outcome {
        Outcome::Measured(measured) => {
            let mut all: Vec<u64> = measured.host_ns.iter().flatten().copied().collect();
            all.sort_unstable();
            let middle = all.get(all.len() / 2).copied().unwrap_or(0) as f64 / 1e6;
            format!("{name}  {middle:.3} ms, {} iterations, off by {:.1e}", all.len(), measured.check.max_abs)
        }
        Outcome::Failed(failed) => crate::one_line(&format!("{name}  failed: {}: {}", failed.stage, failed.message)),
    }
}
