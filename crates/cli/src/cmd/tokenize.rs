//! `mlxt tokenize`: token ids and tokens, as the model sees a text, special tokens included.
//!
//! It loads no weights. A text may have any length here, as in `transformers`, unless `--max-length` or `--truncate`
//! say otherwise.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{AutoTokenizer, Builder};
use serde::Serialize;

use super::stream;
use crate::args::{BatchArgs, Call, DeviceArgs, InputArgs, ModelArgs, OutputArgs, RunArgs};
use crate::input::{Limit, Row, Source};
use crate::model::ModelSource;
use crate::one_line;
use crate::output::{Kind, Record, Shape, Text, Value};
use crate::progress::Progress;

/// Texts tokenised at a time: a few hundred thousand tokens at most.
const CHUNK: Limit = Limit { rows: 4096, bytes: 1 << 20 };

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
    #[command(flatten)]
    run: RunArgs,
}

/// What `mlxt tokenize` does, checked.
struct Config {
    model: ModelSource,
    builder: Builder<AutoTokenizer>,
    source: Source,
    output: OutputArgs,
    run: RunArgs,
}

/// One text's tokens.
#[derive(Serialize)]
struct Tokenized {
    index: u64,
    ids: Vec<u32>,
    tokens: Vec<String>,
}

/// Tokenises all texts.
pub(crate) fn run(args: TokenizeArgs, call: &Call) -> Result<()> {
    let progress = Progress::new(call.verbosity, args.output.is_stdout());
    tokenize(args.config(&progress)?, call, &progress)
}

fn tokenize(config: Config, call: &Call, progress: &Progress) -> Result<()> {
    let (rows, mut sink) = config.run.open(config.model, config.source, config.output, call, progress)?;
    let tokenizer = config.builder.build()?;
    let columns = [("index", Kind::Integer), ("ids", Kind::Integers), ("tokens", Kind::Texts)];
    sink.begin(&Shape::table("index  tokens  token:id", &columns), None)?;
    let tokenize = |rows: &[Row]| tokenizer.encode_batch(rows);
    stream::run(rows, CHUNK, sink, progress, tokenize, |row, encoding| {
        Ok(Tokenized { index: row.index, ids: encoding.ids, tokens: encoding.tokens })
    })
}

impl TokenizeArgs {
    fn config(self, progress: &Progress) -> Result<Config> {
        self.output.no_array("tokens")?;
        let (model, source) = (self.model.source(), self.input.source()?);
        let builder = self.model.hub.apply(AutoTokenizer::builder(self.model.model), progress);
        let builder = self.batch.apply(self.device.apply(builder));
        Ok(Config { model, builder, source, output: self.output, run: self.run })
    }
}

impl Record for Tokenized {
    fn text(&self, out: &mut Text) {
        let pairs = self.tokens.iter().zip(&self.ids).map(|(token, id)| format!("{}:{id}", one_line(token)));
        let pairs: Vec<String> = pairs.collect();
        out.line(format_args!("{:>5}  {:>6}  {}", self.index, self.ids.len(), pairs.join(" ")));
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        out(&[self.index.into(), self.ids[..].into(), self.tokens[..].into()]);
    }
}
