//! `mlxt study compare A B`: what became slower or faster beyond noise; status 1 if anything became slower or fails now.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use mlxt_study::compare::{THRESHOLD, Verdict, compare};
use mlxt_study::record::Records;

use crate::args::OutputArgs;
use crate::output::Text;

/// Arguments of `mlxt study compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Records before: a file or a folder
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Records after
    #[arg(value_name = "B")]
    after: PathBuf,
    /// The least change that counts, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0 * THRESHOLD, value_parser = percent)]
    threshold: f64,
    /// Show what did not change too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Compares.
pub(crate) fn run(args: CompareArgs) -> Result<()> {
    let document = args.output.document()?;
    let (before, after) = (Records::read(&args.before)?, Records::read(&args.after)?);
    let mut comparison = compare(&before, &after, args.threshold / 100.0);
    let [slower, fails, faster, same] =
        [Verdict::Slower, Verdict::Fails, Verdict::Faster, Verdict::Same].map(|v| comparison.count(v));
    if !args.all {
        comparison.changes.retain(|change| change.verdict != Verdict::Same);
    }
    let worse = comparison.is_worse();
    document.write(&comparison, || {
        let mut text = Text::default();
        for note in &comparison.notes {
            text.line(format_args!("note: {note}"));
        }
        for c in &comparison.changes {
            let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.3}"));
            let ratio = c.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}x"));
            let interval = c.interval.as_ref().map_or_else(String::new, |i| format!("[{:.3}, {:.3}]", i.low, i.high));
            let (verdict, before, after) = (c.verdict.to_string(), ms(c.before_ms), ms(c.after_ms));
            text.line(format_args!(
                "{verdict:<9} {before:>10} -> {after:>10} ms  {ratio:>7} {interval:<16}  {}  {}",
                c.cell, c.variant
            ));
        }
        text.line(format_args!("{slower} slower, {fails} fail now, {faster} faster, {same} the same within noise"));
        text
    })?;
    if worse {
        bail!("{slower} slower and {fails} failing beyond noise");
    }
    Ok(())
}

/// A change in percent. Anything is within one that is not finite.
fn percent(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err("must be a finite number, 0 at least".into()),
    }
}
