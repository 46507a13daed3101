//! The commands of models with a head: each file is one task, what it asks of a model and what its answers look like.
//!
//! What they share is here: the options, and the way from a chunk of texts to records. The tasks themselves are in the
//! engine.

pub(super) mod answer;
pub(super) mod classify;
pub(super) mod fill_mask;
pub(super) mod ner;
pub(super) mod rerank;
pub(super) mod zero_shot;

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Builder, Load};

use super::stream;
use crate::args::{BatchArgs, DeviceArgs, ModelArgs, OutputArgs, Verbosity};
use crate::input::{Limit, Texts};
use crate::output::{Record, Sink};
use crate::progress::Progress;

/// Texts answered at a time. A byte is at most about a token, and a token of a text has a score for each label: a chunk
/// stays under 32 MiB with 32 labels.
const CHUNK: Limit = Limit { texts: 1024, bytes: 1 << 18 };

/// How every task runs and where its answers go.
#[derive(Debug, Args)]
struct TaskArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a task's command does, checked.
struct Job<T: Load> {
    builder: Builder<T>,
    output: OutputArgs,
    progress: Progress,
}

impl TaskArgs {
    /// The task `T` of `model` as the options have it; `answers` is what it gives, for an error.
    fn job<T: Load>(
        self,
        model: ModelArgs,
        builder: fn(String) -> Builder<T>,
        answers: &str,
        verbosity: Verbosity,
    ) -> Result<Job<T>> {
        self.output.no_array(answers)?;
        let progress = Progress::new(verbosity, self.output.is_stdout());
        let builder = model.hub.apply(builder(model.model), &progress);
        let builder = self.batch.apply(self.device.apply(builder));
        Ok(Job { builder, output: self.output, progress })
    }
}

/// Answers all texts, a record each, and completes `sink`.
fn each<A, R: Record>(
    texts: Texts,
    sink: Sink,
    progress: &Progress,
    answer: impl Fn(&[String]) -> mlx_transformers::Result<Vec<A>>,
    record: impl Fn(u64, &str, A) -> R,
) -> Result<()> {
    stream::run(texts, CHUNK, sink, progress, |first, chunk, sink| {
        let answers = answer(chunk).map_err(|e| stream::from_start(e, first))?;
        for (index, (text, answer)) in (first..).zip(chunk.iter().zip(answers)) {
            sink.push(&record(index, text, answer))?;
        }
        Ok(())
    })
}
