//! `mlxt embed`: a vector per text, pooled and normalised as the model's folder says unless told otherwise.

use anyhow::Result;
use clap::{Args, ValueEnum};
use mlx_transformers::{Builder, Pooling, SentenceTransformer};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, DeviceArgs, InputArgs, ModelArgs, OutputArgs, Verbosity};
use crate::input::{Limit, Source};
use crate::output::{Record, Row, Shape, Text, numbered, shown};
use crate::progress::Progress;

/// Texts embedded at a time: enough to sort by length, little beside a model. A chunk's vectors take 6 MiB at 384
/// dimensions.
const CHUNK: Limit = Limit { texts: 4096, bytes: 1 << 23 };

/// Arguments of `mlxt embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// How a text's tokens become one vector [default: what the model says, else mean]
    #[arg(long, value_name = "POOLING")]
    pooling: Option<PoolingName>,
    /// Scale vectors to length 1 [default: what the model says]
    #[arg(long, conflicts_with = "no_normalize")]
    normalize: bool,
    /// Leave vectors as long as they come out
    #[arg(long)]
    no_normalize: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PoolingName {
    Mean,
    Cls,
    Max,
    Last,
}

/// One text's vector.
#[derive(Serialize)]
struct Embedded<'a> {
    index: u64,
    tokens: usize,
    embedding: &'a [f32],
}

/// What `mlxt embed` does, checked.
struct Config {
    builder: Builder<SentenceTransformer>,
    source: Source,
    output: OutputArgs,
}

/// Embeds all texts.
pub(crate) fn run(args: EmbedArgs, verbosity: Verbosity) -> Result<()> {
    let progress = Progress::new(verbosity, args.output.is_stdout());
    embed(args.config(&progress)?, &progress)
}

fn embed(config: Config, progress: &Progress) -> Result<()> {
    let texts = config.source.open()?;
    let mut sink = config.output.open()?;
    let model = config.builder.build()?;
    progress.device(model.info());
    sink.begin(&Shape {
        heading: "index  tokens      norm  embedding",
        columns: ["index", "tokens"].map(str::to_owned).into_iter().chain(numbered('e', model.dim())).collect(),
        width: model.dim(),
    })?;
    stream::run(texts, CHUNK, sink, progress, |first, chunk, sink| {
        let embeddings = model.encode(chunk).map_err(|e| stream::from_start(e, first))?;
        let rows = embeddings.iter().zip(embeddings.tokens());
        for (index, (embedding, &tokens)) in (first..).zip(rows) {
            sink.push(&Embedded { index, tokens, embedding })?;
        }
        Ok(())
    })
}

impl EmbedArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        let source = self.input.source()?;
        let mut builder = SentenceTransformer::builder(self.model.model);
        builder = self.batch.apply(self.device.apply(self.model.hub.apply(builder, progress)));
        if let Some(pooling) = self.pooling {
            builder = builder.pooling(pooling.into());
        }
        if self.normalize || self.no_normalize {
            builder = builder.normalize(self.normalize);
        }
        Ok(Config { builder, source, output: self.output })
    }
}

impl From<PoolingName> for Pooling {
    fn from(name: PoolingName) -> Self {
        match name {
            PoolingName::Mean => Self::Mean,
            PoolingName::Cls => Self::Cls,
            PoolingName::Max => Self::Max,
            PoolingName::Last => Self::Last,
        }
    }
}

impl Record for Embedded<'_> {
    fn text(&self, out: &mut Text) {
        let Self { index, tokens, embedding } = self;
        out.line(format_args!("{index:>5}  {tokens:>6}  {}", shown(embedding)));
    }

    fn csv(&self, row: &mut Row<'_>) {
        row.field(self.index);
        row.field(self.tokens);
        row.fields(self.embedding);
        row.end();
    }

    fn array(&self) -> Option<&[f32]> {
        Some(self.embedding)
    }
}
