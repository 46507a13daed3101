//! `mlxt features`: the last hidden state, a row per token, as `transformers`' `AutoModel` gives it.

use anyhow::{Result, bail};
use clap::Args;
use mlx_transformers::{AutoModel, Builder, Features};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, DeviceArgs, InputArgs, ModelArgs, OutputArgs, Usage, Verbosity};
use crate::input::{Limit, Source};
use crate::one_line;
use crate::output::{Format, Record, Row, Shape, Text, numbered, shown};
use crate::progress::Progress;

/// Texts computed at a time. A byte is at most about a token and a token is `hidden` floats: at 1024 columns a chunk
/// stays under 256 MiB, and ordinary text under 64.
const CHUNK: Limit = Limit { texts: 256, bytes: 1 << 16 };

/// Arguments of `mlxt features`.
#[derive(Debug, Args)]
pub(crate) struct FeaturesArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Add the pooler's output, "pooler", one vector per text
    #[arg(long)]
    pooler: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `mlxt features` does, checked.
struct Config {
    name: String,
    builder: Builder<AutoModel>,
    pooler: bool,
    source: Source,
    output: OutputArgs,
}

/// One text's tokens and their vectors.
#[derive(Serialize)]
struct Hidden<'a> {
    index: u64,
    tokens: &'a [String],
    shape: [usize; 2],
    data: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    pooler: Option<&'a [f32]>,
}

/// Computes all texts.
pub(crate) fn run(args: FeaturesArgs, verbosity: Verbosity) -> Result<()> {
    let progress = Progress::new(verbosity, args.output.is_stdout());
    features(args.config(&progress)?, &progress)
}

fn features(config: Config, progress: &Progress) -> Result<()> {
    let array = config.output.format() == Format::Npy;
    let texts = config.source.open()?;
    let mut sink = config.output.open()?;
    let model = config.builder.build()?;
    progress.device(model.info());
    sink.begin(&Shape {
        heading: "index  token                 norm  hidden state",
        columns: ["index", "token"].map(str::to_owned).into_iter().chain(numbered('f', model.hidden_size())).collect(),
        width: model.hidden_size(),
    })?;
    stream::run(texts, CHUNK, sink, progress, |first, chunk, sink| {
        if array && first + chunk.len() as u64 > 1 {
            return Err(one_array());
        }
        let features = model.features(chunk).map_err(|e| stream::from_start(e, first))?;
        for (index, f) in (first..).zip(&features) {
            let Features { tokens, hidden, hidden_size, pooler, .. } = f;
            if config.pooler && pooler.is_none() {
                bail!("{} has no pooler: leave out --pooler", config.name);
            }
            sink.push(&Hidden {
                index,
                tokens,
                shape: [tokens.len(), *hidden_size],
                data: hidden,
                pooler: pooler.as_deref().filter(|_| config.pooler),
            })?;
        }
        Ok(())
    })
}

impl FeaturesArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        let format = self.output.format();
        if self.pooler && matches!(format, Format::Csv | Format::Npy) {
            return Err(Usage::error("--pooler has no place in csv or npy: --format jsonl, json or text"));
        }
        let source = self.input.source()?;
        if format == Format::Npy && matches!(&source, Source::Arguments(texts) if texts.len() > 1) {
            return Err(one_array());
        }
        let builder = self.model.hub.apply(AutoModel::builder(&self.model.model), progress);
        let builder = self.batch.apply(self.device.apply(builder));
        Ok(Config { name: self.model.model, builder, pooler: self.pooler, source, output: self.output })
    }
}

fn one_array() -> anyhow::Error {
    Usage::error("features of several texts are no single array: give one text, or --format jsonl, json or csv")
}

impl Hidden<'_> {
    fn rows(&self) -> impl Iterator<Item = (&String, &[f32])> {
        self.tokens.iter().zip(self.data.chunks(self.shape[1].max(1)))
    }
}

impl Record for Hidden<'_> {
    fn text(&self, out: &mut Text) {
        for (token, vector) in self.rows() {
            out.line(format_args!("{:>5}  {:<16}  {}", self.index, one_line(token), shown(vector)));
        }
        if let Some(vector) = self.pooler {
            out.line(format_args!("{:>5}  {:<16}  {}", self.index, "(pooler)", shown(vector)));
        }
    }

    fn csv(&self, row: &mut Row<'_>) {
        for (token, vector) in self.rows() {
            row.field(self.index);
            row.field(token);
            row.fields(vector);
            row.end();
        }
    }

    fn array(&self) -> Option<&[f32]> {
        Some(self.data)
    }
}
