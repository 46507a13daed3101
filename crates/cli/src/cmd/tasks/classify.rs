//! `mlxt classify`: scores for the labels a model was trained with, of texts or of pairs of them.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Scored, TextClassifier};
use serde::Serialize;

use super::{Job, TaskArgs};
use crate::args::{Call, InputArgs, ModelArgs};
use crate::input::Row;
use crate::one_line;
use crate::output::{Kind, Record, Shape, Text, Value};

/// Arguments of `mlxt classify`.
#[derive(Debug, Args)]
pub(crate) struct ClassifyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A second text, with which each text makes a pair
    #[arg(long, value_name = "TEXT")]
    pair: Option<String>,
    /// The field that holds the second text of each row in .jsonl, .csv and .parquet
    #[arg(long, value_name = "NAME", requires = "input", conflicts_with = "pair")]
    pair_column: Option<String>,
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
pub(crate) fn run(args: ClassifyArgs, call: &Call) -> Result<()> {
    let in_file = args.pair_column.is_some();
    let source = args.input.source_with(args.pair_column)?;
    let Job { builder, work } = args.task.job(args.model, TextClassifier::builder, source, "labels", call)?;
    let model = builder.build()?;
    let second = args.pair.as_deref();
    let classify = |rows: &[Row]| match second {
        None if !in_file => model.classify(rows),
        _ => {
            let pairs: Vec<(&str, &str)> =
                rows.iter().map(|row| (row.field(0), second.unwrap_or_else(|| row.field(1)))).collect();
            model.classify_pairs(&pairs)
        }
    };
    work.each(model.info(), &Labelled::shape(), classify, Labelled::new)
}

impl Labelled {
    /// What stands above and around them.
    pub(super) fn shape() -> Shape {
        Shape::table(
            "index     score  label",
            &[("index", Kind::Integer), ("label", Kind::Text), ("score", Kind::Float)],
        )
    }

    /// The record of a row.
    pub(super) fn new(row: &Row, labels: Vec<Scored>) -> Self {
        let labels = labels.into_iter().map(|Scored { label, score }| Label { label, score });
        Self { index: row.index, labels: labels.collect() }
    }
}

impl Record for Labelled {
    fn text(&self, out: &mut Text) {
        for Label { label, score } in &self.labels {
            out.line(format_args!("{:>5}  {score:>8.4}  {}", self.index, one_line(label)));
        }
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        for Label { label, score } in &self.labels {
            out(&[self.index.into(), label.into(), (*score).into()]);
        }
    }
}
