//! `mlxt classify`: scores for the labels a model was trained with, of texts or of pairs of them.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Scored, TextClassifier};
use serde::Serialize;

use super::{Job, TaskArgs, each};
use crate::args::{InputArgs, ModelArgs, Verbosity};
use crate::one_line;
use crate::output::{Record, Row, Shape, Text};

/// Arguments of `mlxt classify`.
#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A second text, with which each text makes a pair
    #[arg(long, value_name = "TEXT")]
    pair: Option<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    task: TaskArgs,
}

/// One text's labels, best first; of `mlxt zero-shot` too.
#[derive(Serialize)]
pub(super) struct Labelled {
    index: u64,
    labels: Vec<Label>,
}

#[derive(Serialize)]
struct Label {
    label: String,
    score: f32,
}

/// Classifies all texts.
pub(crate) fn run(args: ClassifyArgs, verbosity: Verbosity) -> Result<()> {
    let Job { builder, output, progress } = args.task.job(args.model, TextClassifier::builder, "labels", verbosity)?;
    let texts = args.input.source()?.open()?;
    let mut sink = output.open()?;
    let model = builder.build()?;
    progress.device(model.info());
    sink.begin(&Labelled::shape())?;
    let classify = |texts: &[String]| match &args.pair {
        None => model.classify(texts),
        Some(second) => {
            let pairs: Vec<(&String, &String)> = texts.iter().map(|text| (text, second)).collect();
            model.classify_pairs(&pairs)
        }
    };
    each(texts, sink, &progress, classify, Labelled::new)
}

impl Labelled {
    /// What stands above and around them.
    pub(super) fn shape() -> Shape {
        Shape::table("index     score  label", &["index", "label", "score"])
    }

    /// The record of text `index`.
    pub(super) fn new(index: u64, _: &str, labels: Vec<Scored>) -> Self {
        let labels = labels.into_iter().map(|Scored { label, score }| Label { label, score });
        Self { index, labels: labels.collect() }
    }
}

impl Record for Labelled {
    fn text(&self, out: &mut Text) {
        for Label { label, score } in &self.labels {
            out.line(format_args!("{:>5}  {score:>8.4}  {}", self.index, one_line(label)));
        }
    }

    fn csv(&self, row: &mut Row<'_>) {
        for Label { label, score } in &self.labels {
            row.field(self.index);
            row.field(label);
            row.field(score);
            row.end();
        }
    }
}
