//! `mlxt ner`: labelled tokens of a text, or the entities they make: token classification.

use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Aggregation, Entity, TokenClassifier};
use serde::Serialize;

use super::{Job, TaskArgs};
use crate::args::{Call, InputArgs, ModelArgs};
use crate::input::Row;
use crate::one_line;
use crate::output::{Kind, Record, Shape, Text, Value};

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
pub(crate) fn run(args: NerArgs, call: &Call) -> Result<()> {
    let source = args.input.source()?;
    let Job { builder, work } = args.task.job(args.model, TokenClassifier::builder, source, "entities", call)?;
    let model = builder.build()?;
    let shape = Shape::table(
        "index     score  start    end  entity      text",
        &[
            ("index", Kind::Integer),
            ("entity", Kind::Text),
            ("score", Kind::Float),
            ("start", Kind::Integer),
            ("end", Kind::Integer),
            ("text", Kind::Text),
            ("word", Kind::Text),
        ],
    );
    work.each(model.info(), &shape, |rows| model.tag(rows, args.aggregation), Tagged::new)
}

impl Tagged {
    fn new(row: &Row, entities: Vec<Entity>) -> Self {
        let found = |entity| Found::new(row.field(0), entity);
        Self { index: row.index, entities: entities.into_iter().map(found).collect() }
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

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        for Found { entity, score, start, end, text, word } in &self.entities {
            let (index, score, start, end) = (self.index.into(), (*score).into(), (*start).into(), (*end).into());
            out(&[index, entity.into(), score, start, end, text.into(), word.into()]);
        }
    }
}
