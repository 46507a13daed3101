//! The commands of models with a head: each file is one task, what it asks of a model and what its answers look like.
//!
//! What they share is here: the options, and the way from rows to records. The tasks themselves are in the
//! engine.

pub(super) mod answer;
pub(super) mod classify;
pub(super) mod fill_mask;
pub(super) mod ner;
pub(super) mod rerank;
pub(super) mod zero_shot;

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Builder, Info, Load};

use super::stream;
use crate::args::{BatchArgs, Call, DeviceArgs, ModelArgs, OutputArgs, RunArgs};
use crate::input::{Limit, Row, Rows, Source};
use crate::output::{Record, Shape, Sink};
use crate::progress::Progress;

/// Rows answered at a time. A byte is at most about a token, and a token of a text has a score for each label: a chunk
/// stays under 32 MiB with 32 labels.
const CHUNK: Limit = Limit { rows: 1024, bytes: 1 << 18 };

/// How every task runs and where its answers go.
#[derive(Debug, Args)]
struct TaskArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// What a task's command does, checked, with its input and output open.
struct Job<T: Load> {
    builder: Builder<T>,
    work: Work,
}

/// Rows on their way to answers.
struct Work {
    rows: Rows,
    sink: Sink,
    progress: Progress,
}

impl TaskArgs {
    /// The task `T` of `model` over `source` as the options have it; `answers` is what it gives, for an error.
    fn job<T: Load>(
        self,
        model: ModelArgs,
        builder: fn(String) -> Builder<T>,
        source: Source,
        answers: &str,
        call: &Call,
    ) -> Result<Job<T>> {
        self.output.no_array(answers)?;
        let progress = Progress::new(call.verbosity, self.output.is_stdout());
        let from = model.source();
        let builder = model.hub.apply(builder(model.model), &progress);
        let builder = self.batch.apply(self.device.apply(builder));
        let (rows, sink) = self.run.open(from, source, self.output, call, &progress)?;
        Ok(Job { builder, work: Work { rows, sink, progress } })
    }
}

impl Work {
    /// Answers all rows, a record each, and completes the output.
    fn each<A, R: Record>(
        mut self,
        info: &Info,
        shape: &Shape,
        answer: impl Fn(&[Row]) -> mlx_transformers::Result<Vec<A>>,
        record: impl Fn(&Row, A) -> R,
    ) -> Result<()> {
        self.progress.device(info);
        self.sink.begin(shape, Some(info))?;
        stream::run(self.rows, CHUNK, self.sink, &self.progress, answer, |row, answer| Ok(record(row, answer)))
    }
}
