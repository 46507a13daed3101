//! `mlxt tokenize`: token ids and tokens, as the model sees a text, special tokens included.
//!
//! It loads no weights. A text may have any length here, as in `transformers`, unless `--max-length` or `--truncate`
//! say otherwise.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{AutoTokenizer, Builder};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, DeviceArgs, InputArgs, ModelArgs, OutputArgs, Verbosity};
use crate::input::{Limit, Source};
use crate::one_line;
use crate::output::{Record, Row, Shape, Text};
use crate::progress::Progress;

/// Texts tokenised at a time: a few hundred thousand tokens at most.
const CHUNK: Limit = Limit { texts: 4096, bytes: 1 << 20 };

/// Arguments of `mlxt tokenize`.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `mlxt tokenize` does, checked.
struct Config {
    builder: Builder<AutoTokenizer>,
    source: Source,
    output: OutputArgs,
}

/// One text's tokens.
#[derive(Serialize)]
struct Tokenized<'a> {
    index: u64,
    ids: &'a [u32],
    tokens: &'a [String],
}

/// Tokenises all texts.
pub(crate) fn run(args: TokenizeArgs, verbosity: Verbosity) -> Result<()> {
    let progress = Progress::new(verbosity, args.output.is_stdout());
    tokenize(args.config(&progress)?, &progress)
}

fn tokenize(config: Config, progress: &Progress) -> Result<()> {
    let texts = config.source.open()?;
    let mut sink = config.output.open()?;
    let tokenizer = config.builder.build()?;
    sink.begin(&Shape::table("index  tokens  token:id", &["index", "ids", "tokens"]))?;
    stream::run(texts, CHUNK, sink, progress, |first, chunk, sink| {
        let encodings = tokenizer.encode_batch(chunk).map_err(|e| stream::from_start(e, first))?;
        for (index, encoding) in (first..).zip(&encodings) {
            sink.push(&Tokenized { index, ids: &encoding.ids, tokens: &encoding.tokens })?;
        }
        Ok(())
    })
}

impl TokenizeArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        self.output.no_array("tokens")?;
        let source = self.input.source()?;
        let builder = self.model.hub.apply(AutoTokenizer::builder(self.model.model), progress);
        let builder = self.batch.apply(self.device.apply(builder));
        Ok(Config { builder, source, output: self.output })
    }
}

impl Record for Tokenized<'_> {
    fn text(&self, out: &mut Text) {
        let pairs = self.tokens.iter().zip(self.ids).map(|(token, id)| format!("{}:{id}", one_line(token)));
        let pairs: Vec<String> = pairs.collect();
        out.line(format_args!("{:>5}  {:>6}  {}", self.index, self.ids.len(), pairs.join(" ")));
    }

    /// Lists are written as JSON: tokens may hold any character.
    fn csv(&self, row: &mut Row<'_>) {
        row.field(self.index);
        row.field(serde_json::json!(self.ids));
        row.field(serde_json::json!(self.tokens));
        row.end();
    }
}
