//! `mlxt embed`: a vector per text, pooled and normalised as the model's folder says unless told otherwise.

use anyhow::Result;
use clap::{Args, ValueEnum};
use mlx_transformers::{Builder, Pooling, SentenceTransformer};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, Call, DeviceArgs, InputArgs, ModelArgs, OutputArgs, RunArgs};
use crate::input::{Limit, Row, Source};
use crate::model::ModelSource;
use crate::output::{Column, Kind, Record, Shape, Text, Value, shown};
use crate::progress::Progress;

/// Texts embedded at a time: enough to sort by length, little beside a model. A chunk's vectors take 6 MiB at 384
/// dimensions.
const CHUNK: Limit = Limit { rows: 4096, bytes: 1 << 23 };

/// Arguments of `mlxt embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// How a text's tokens become one vector [default: what the model says, else mean]
    #[arg(long, value_name = "POOLING")]
    pooling: Option<PoolingName>,
    /// Which of the model's prompts to put before every text, such as query [default: the model's default, mostly none]
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
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
    #[command(flatten)]
    run: RunArgs,
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
struct Embedded {
    index: u64,
    tokens: usize,
    embedding: Vec<f32>,
}

/// What `mlxt embed` does, checked.
struct Config {
    model: ModelSource,
    builder: Builder<SentenceTransformer>,
    source: Source,
    output: OutputArgs,
    run: RunArgs,
}

/// Embeds all texts.
pub(crate) fn run(args: EmbedArgs, call: &Call) -> Result<()> {
    let progress = Progress::new(call.verbosity, args.output.is_stdout());
    embed(args.config(&progress)?, call, &progress)
}

fn embed(config: Config, call: &Call, progress: &Progress) -> Result<()> {
    let (rows, mut sink) = config.run.open(config.model, config.source, config.output, call, progress)?;
    let model = config.builder.build()?;
    progress.device(model.info());
    let shape = Shape {
        heading: "index  tokens      norm  embedding",
        columns: vec![
            Column::new("index", Kind::Integer),
            Column::new("tokens", Kind::Integer),
            Column::new("embedding", Kind::Vector { letter: 'e', width: model.dim() }),
        ],
        width: model.dim(),
    };
    sink.begin(&shape, Some(model.info()))?;
    let encode = |rows: &[Row]| {
        let embeddings = model.encode(rows)?;
        let vectors = embeddings.iter().map(<[f32]>::to_vec);
        Ok(vectors.zip(embeddings.tokens().iter().copied()).collect())
    };
    stream::run(rows, CHUNK, sink, progress, encode, |row, (embedding, tokens)| {
        Ok(Embedded { index: row.index, tokens, embedding })
    })
}

impl EmbedArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        let (model, source) = (self.model.source(), self.input.source()?);
        let mut builder = SentenceTransformer::builder(self.model.model);
        builder = self.batch.apply(self.device.apply(self.model.hub.apply(builder, progress)));
        if let Some(pooling) = self.pooling {
            builder = builder.pooling(pooling.into());
        }
        if let Some(name) = self.prompt {
            builder = builder.prompt_name(name);
        }
        if self.normalize || self.no_normalize {
            builder = builder.normalize(self.normalize);
        }
        Ok(Config { model, builder, source, output: self.output, run: self.run })
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

impl Record for Embedded {
    fn text(&self, out: &mut Text) {
        let Self { index, tokens, embedding } = self;
        out.line(format_args!("{index:>5}  {tokens:>6}  {}", shown(embedding)));
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        out(&[self.index.into(), self.tokens.into(), self.embedding[..].into()]);
    }

    fn array(&self) -> Option<&[f32]> {
        Some(&self.embedding)
    }
}
