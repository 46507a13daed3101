//! `mlxt demo`: a real model, all-MiniLM-L6-v2, on built-in sentences: how alike they are, how fast it goes, on what.
//!
//! The first thing a user sees. It says honestly what an English model does with other languages.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Embeddings, Hub, ModelFolder, SentenceTransformer, pretrained_demo};
use serde::Serialize;

use super::origin;
use crate::args::{DeviceArgs, Verbosity};
use crate::output::{Document, Format, Text};
use crate::progress::{Progress, device_line};

/// Two pairs in English, then translations of the third and the first into other languages and scripts.
const SENTENCES: [&str; 10] = [
    "A cat is sleeping on the sofa.",
    "The kitten naps on the couch.",
    "The central bank raised interest rates.",
    "Interest rates went up again today.",
    "El banco central subió los tipos de interés.",
    "Eine Katze schläft auf dem Sofa.",
    "Кошка спит на диване.",
    "猫在沙发上睡觉。",
    "बिल्ली सोफे पर सो रही है।",
    "القطة تنام على الأريكة.",
];

const EXPLANATION: &str = "\
This model was trained on English: 1 and 2 are alike in meaning, not in words, and so are 3 and 4.
5 (Spanish for 3) and 6 (German for 1) are near by shared words. 7 to 10 all say what 1 says, but of
other scripts the model knows little more than the letters; take a multilingual model for those.";

/// Copies of the sentences in one run of the speed measurement: enough for full batches.
const COPIES: usize = 24;

/// The speed is the median of as many runs as fit into this, within the limits below.
const MEASURED: Duration = Duration::from_secs(2);
const FEWEST_RUNS: usize = 3;
const MOST_RUNS: usize = 51;

/// Arguments of `mlxt demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Never touch the network (also `HF_HUB_OFFLINE=1`)
    #[arg(long)]
    offline: bool,
    /// text, json or jsonl
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// All that the demo tells.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    model: &'static str,
    folder: String,
    origin: &'static str,
    load_ms: f64,
    device: String,
    hardware: String,
    detail: String,
    dtype: String,
    why: String,
    sentences: [&'static str; SENTENCES.len()],
    /// Cosines, row by row.
    similarities: Vec<Vec<f32>>,
    speed: Speed,
    #[serde(skip)]
    running_on: String,
}

/// Medians over runs, after runs that only warm up.
#[derive(Serialize)]
struct Speed {
    sentences_per_second: f64,
    tokens_per_second: f64,
    batch: usize,
    batch_runs: usize,
    one_sentence_ms: f64,
    one_sentence_runs: usize,
}

/// Finds the model, runs it and tells.
pub(crate) fn run(args: &DemoArgs, verbosity: Verbosity) -> Result<()> {
    let document = Document::new(args.format, None)?;
    // A first run downloads 90 MB: whoever does not ask for silence hears of it.
    let progress = Progress::new(Verbosity { verbose: !verbosity.quiet, ..verbosity }, false);
    let hub = Hub::from_env();
    let hub = Hub { offline: hub.offline || args.offline, ..hub };
    let folder = pretrained_demo(&hub, |event| progress.hear(event))?;
    progress.clear();
    let report = measure(&folder, &args.device)?;
    document.write(&report, || describe(&report))
}

fn measure(folder: &ModelFolder, device: &DeviceArgs) -> Result<Report> {
    let started = Instant::now();
    let path = folder.path().display().to_string();
    let model = device.apply(SentenceTransformer::builder(&path)).build()?;
    let load_ms = milliseconds(started.elapsed());
    let embeddings = model.encode(&SENTENCES)?;
    let n = embeddings.len();
    let info = embeddings.info();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        model: "all-MiniLM-L6-v2",
        folder: path,
        origin: origin(folder.origin()),
        load_ms,
        device: info.device.device.clone(),
        hardware: info.device.hardware.clone(),
        detail: info.device.detail.clone(),
        dtype: info.precision.to_string(),
        why: info.why.clone(),
        sentences: SENTENCES,
        similarities: (0..n).map(|i| (0..n).map(|j| embeddings.similarity(i, j)).collect()).collect(),
        speed: speed(&model, &embeddings)?,
        running_on: device_line(info),
    })
}

fn speed(model: &SentenceTransformer, embeddings: &Embeddings) -> Result<Speed> {
    let batch = SENTENCES.repeat(COPIES);
    let tokens = embeddings.tokens().iter().sum::<usize>() * COPIES;
    let (seconds, batch_runs) = median(model, &batch)?;
    let (one, one_sentence_runs) = median(model, &SENTENCES[..1])?;
    Ok(Speed {
        sentences_per_second: batch.len() as f64 / seconds,
        tokens_per_second: tokens as f64 / seconds,
        batch: batch.len(),
        batch_runs,
        one_sentence_ms: one * 1e3,
        one_sentence_runs,
    })
}

/// The median time of a run, in seconds, and the number of runs; one run before them only warms up.
fn median(model: &SentenceTransformer, texts: &[&str]) -> Result<(f64, usize)> {
    model.encode(texts)?;
    let started = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < FEWEST_RUNS || (runs.len() < MOST_RUNS && started.elapsed() < MEASURED) {
        let run = Instant::now();
        model.encode(texts)?;
        runs.push(run.elapsed().as_secs_f64());
    }
    runs.sort_by(f64::total_cmp);
    Ok((runs[runs.len() / 2], runs.len()))
}

fn describe(report: &Report) -> Text {
    let Report { version, model, origin, load_ms, similarities, speed, running_on, .. } = report;
    let mut text = Text::default();
    text.line(format_args!("mlxt {version}: {model} ({origin}), loaded in {load_ms:.0} ms\n{running_on}\n"));
    text.add(format_args!("Cosine similarity, in hundredths\n\n    "));
    for j in 1..=SENTENCES.len() {
        text.add(format_args!("{j:>4}"));
    }
    text.line(format_args!(""));
    for (i, (row, sentence)) in similarities.iter().zip(SENTENCES).enumerate() {
        text.add(format_args!("{:>4}", i + 1));
        for similarity in &row[..=i] {
            text.add(format_args!("{:>4}", (similarity * 100.0).round() as i32));
        }
        let above = 4 * (SENTENCES.len() - 1 - i);
        text.line(format_args!("{:above$}  {sentence}", ""));
    }
    let Speed { sentences_per_second, tokens_per_second, batch, batch_runs, one_sentence_ms, one_sentence_runs } =
        speed;
    text.line(format_args!("\n{EXPLANATION}\n"));
    text.add(format_args!("{sentences_per_second:.0} sentences/s, {tokens_per_second:.0} tokens/s"));
    text.line(format_args!(" ({batch} at once, median of {batch_runs} runs)"));
    text.line(format_args!("{one_sentence_ms:.2} ms for one sentence (median of {one_sentence_runs} runs)\n"));
    text.line(format_args!("Next: mlxt embed -m {model} \"your text\""));
    text
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
