//! `mlxt rerank`: documents by how well they answer a query, best first.
//!
//! The order is known when all documents are read, so nothing is written before. Documents are read as a stream all the
//! same: what is kept of each is its score, 16 bytes.

use anyhow::Result;
use clap::Args;
use mlx_transformers::Reranker;
use serde::Serialize;

use super::{CHUNK, Job, TaskArgs, Work, stream};
use crate::args::{Call, InputArgs, ModelArgs};
use crate::input::Row;
use crate::output::{Kind, Record, Shape, Text, Value};

/// Arguments of `mlxt rerank`.
#[derive(Debug, Args)]
#[command(mut_arg("texts", |arg| arg.value_name("DOC").help("Documents (after `--` if one begins with a dash)")))]
#[command(
    after_help = "All documents are scored before the first is written; memory holds their scores, 16 bytes each."
)]
pub(crate) struct RerankArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What the documents are to answer
    #[arg(long, value_name = "TEXT")]
    query: String,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    task: TaskArgs,
}

/// One document's place in the input and its score.
#[derive(Serialize)]
struct Document {
    index: u64,
    score: f32,
}

/// Scores all documents, then writes them in their order.
pub(crate) fn run(args: RerankArgs, call: &Call) -> Result<()> {
    args.task.run.no_resume("documents are written when all of them have a score")?;
    let source = args.input.source()?;
    let Job { builder, work } = args.task.job(args.model, Reranker::builder, source, "ranks", call)?;
    let Work { rows, mut sink, progress } = work;
    let model = builder.build()?;
    progress.device(model.info());
    let shape = Shape::table("index     score", &[("index", Kind::Integer), ("score", Kind::Float)]);
    sink.begin(&shape, Some(model.info()))?;
    let score = |rows: &[Row]| {
        let pairs: Vec<(&str, &Row)> = rows.iter().map(|document| (args.query.as_str(), document)).collect();
        model.score(&pairs)
    };
    let mut documents = Vec::new();
    stream::each(rows, CHUNK, &progress, score, |row, score| documents.push(Document { index: row.index, score }))?;
    // Equal ones stay in the order they came in.
    documents.sort_by(|a, b| b.score.total_cmp(&a.score));
    for document in &documents {
        sink.push(document)?;
    }
    sink.finish()
}

impl Record for Document {
    fn text(&self, out: &mut Text) {
        out.line(format_args!("{:>5}  {:>8.4}", self.index, self.score));
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        out(&[self.index.into(), self.score.into()]);
    }
}
