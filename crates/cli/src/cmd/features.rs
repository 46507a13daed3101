//! `mlxt features`: the last hidden state, a row per token, as `transformers`' `AutoModel` gives it.

use anyhow::{Result, anyhow};
use clap::Args;
use mlx_transformers::{AutoModel, Builder, Features};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, Call, DeviceArgs, InputArgs, ModelArgs, OutputArgs, RunArgs, Usage};
use crate::input::{Limit, Row, Source};
use crate::model::ModelSource;
use crate::one_line;
use crate::output::{Column, Format, Kind, Record, Shape, Text, Value, shown};
use crate::progress::Progress;

/// Texts computed at a time. A byte is at most about a token and a token is `hidden` floats: at 1024 columns a chunk
/// stays under 256 MiB, and ordinary text under 64.
const CHUNK: Limit = Limit { rows: 256, bytes: 1 << 16 };

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
    #[command(flatten)]
    run: RunArgs,
}

/// What `mlxt features` does, checked.
struct Config {
    name: String,
    model: ModelSource,
    builder: Builder<AutoModel>,
    pooler: bool,
    source: Source,
    output: OutputArgs,
    run: RunArgs,
}

/// One text's tokens and their vectors.
#[derive(Serialize)]
struct Hidden {
    index: u64,
    tokens: Vec<String>,
    shape: [usize; 2],
    data: Vec<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pooler: Option<Vec<f32>>,
}

/// Computes all texts.
pub(crate) fn run(args: FeaturesArgs, call: &Call) -> Result<()> {
    let progress = Progress::new(call.verbosity, args.output.is_stdout());
    features(args.config(&progress)?, call, &progress)
}

fn features(config: Config, call: &Call, progress: &Progress) -> Result<()> {
    let array = config.output.format() == Format::Npy;
    let (rows, mut sink) = config.run.open(config.model, config.source, config.output, call, progress)?;
    let model = config.builder.build()?;
    progress.device(model.info());
    let shape = Shape {
        heading: "index  token                 norm  hidden state",
        columns: vec![
            Column::new("index", Kind::Integer),
            Column::new("token", Kind::Text),
            Column::new("hidden", Kind::Vector { letter: 'f', width: model.hidden_size() }),
        ],
        width: model.hidden_size(),
    };
    sink.begin(&shape, Some(model.info()))?;
    let features = |rows: &[Row]| model.features(rows);
    stream::run(rows, CHUNK, sink, progress, features, |row, features| {
        if array && row.index > 0 {
            return Err(one_array());
        }
        let Features { tokens, hidden, hidden_size, pooler, .. } = features;
        if config.pooler && pooler.is_none() {
            return Err(anyhow!("{} has no pooler: leave out --pooler", config.name));
        }
        let shape = [tokens.len(), hidden_size];
        Ok(Hidden { index: row.index, tokens, shape, data: hidden, pooler: pooler.filter(|_| config.pooler) })
    })
}

impl FeaturesArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        let format = self.output.format();
        if self.pooler && matches!(format, Format::Csv | Format::Npy | Format::Parquet) {
            return Err(Usage::error("--pooler has no place in csv, npy or parquet: --format jsonl, json or text"));
        }
        let (model, source) = (self.model.source(), self.input.source()?);
        if format == Format::Npy && matches!(&source, Source::Arguments(texts) if texts.len() > 1) {
            return Err(one_array());
        }
        let builder = self.model.hub.apply(AutoModel::builder(&self.model.model), progress);
        let builder = self.batch.apply(self.device.apply(builder));
        let (name, pooler) = (self.model.model, self.pooler);
        Ok(Config { name, model, builder, pooler, source, output: self.output, run: self.run })
    }
}

fn one_array() -> anyhow::Error {
    Usage::error(
        "features of several texts are no single array: give one text, or --format jsonl, json, csv or parquet",
    )
}

impl Hidden {
    fn vectors(&self) -> impl Iterator<Item = (&String, &[f32])> {
        self.tokens.iter().zip(self.data.chunks(self.shape[1].max(1)))
    }
}

impl Record for Hidden {
    fn text(&self, out: &mut Text) {
        for (token, vector) in self.vectors() {
            out.line(format_args!("{:>5}  {:<16}  {}", self.index, one_line(token), shown(vector)));
        }
        if let Some(vector) = &self.pooler {
            out.line(format_args!("{:>5}  {:<16}  {}", self.index, "(pooler)", shown(vector)));
        }
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        for (token, vector) in self.vectors() {
            out(&[self.index.into(), token.into(), vector.into()]);
        }
    }

    fn array(&self) -> Option<&[f32]> {
        Some(&self.data)
    }
}
