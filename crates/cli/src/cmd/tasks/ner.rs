//! `mlxt ner`: labelled tokens of a text, or the entities they make: token classification.

use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Aggregation, Entity, TokenClassifier};
use serde::Serialize;

use super::{Job, TaskArgs, each};
use crate::args::{InputArgs, ModelArgs, Verbosity};
use crate::one_line;
use crate::output::{Record, Row, Shape, Text};

/// Arguments of `mlxt ner`.
#[derive(Debug, Args)]
pub(crate) struct NerArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// How tokens become entities: none (each for itself), simple (neighbours of one label), or words by their first
    /// token, average or max score
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = Aggregation::from_str)]
    aggregation: Aggregation,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    task: TaskArgs,
}

/// One text's entities, in its order.
#[derive(Serialize)]
struct Tagged {
    index: u64,
    entities: Vec<Found>,
}

/// One entity.
#[derive(Serialize)]
struct Found {
    entity: String,
    score: f32,
    start: usize,
    end: usize,
    /// The input from `start` to `end`.
    text: String,
    /// The tokens as the vocabulary writes them, joined: what pipelines call the word.
    word: String,
}

/// Labels all texts.
pub(crate) fn run(args: NerArgs, verbosity: Verbosity) -> Result<()> {
    let Job { builder, output, progress } =
        args.task.job(args.model, TokenClassifier::builder, "entities", verbosity)?;
    let texts = args.input.source()?.open()?;
    let mut sink = output.open()?;
    let model = builder.build()?;
    progress.device(model.info());
    sink.begin(&Shape::table(
        "index     score  start    end  entity      text",
        &["index", "entity", "score", "start", "end", "text", "word"],
    ))?;
    each(texts, sink, &progress, |texts| model.tag(texts, args.aggregation), Tagged::new)
}

impl Tagged {
    fn new(index: u64, text: &str, entities: Vec<Entity>) -> Self {
        Self { index, entities: entities.into_iter().map(|entity| Found::new(text, entity)).collect() }
    }
}

impl Found {
    fn new(text: &str, Entity { label, score, word, start, end, .. }: Entity) -> Self {
        let text = text.chars().skip(start).take(end.saturating_sub(start)).collect();
        Self { entity: label, score, start, end, text, word }
    }
}

impl Record for Tagged {
    fn text(&self, out: &mut Text) {
        for Found { entity, score, start, end, text, .. } in &self.entities {
            let (index, entity, text) = (self.index, one_line(entity), one_line(text));
            out.line(format_args!("{index:>5}  {score:>8.4}  {start:>5}  {end:>5}  {entity:<10}  {text}"));
        }
    }

    fn csv(&self, row: &mut Row<'_>) {
        for Found { entity, score, start, end, text, word } in &self.entities {
            row.field(self.index);
            row.field(entity);
            row.field(score);
            row.field(start);
            row.field(end);
            row.field(text);
            row.field(word);
            row.end();
        }
    }
}
