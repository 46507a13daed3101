//! `mlxt fill-mask`: the most probable tokens for each mask of a text.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{FillMask, Guess};
use serde::Serialize;

use super::{Job, TaskArgs, each};
use crate::args::{InputArgs, ModelArgs, Verbosity, at_least_one};
use crate::one_line;
use crate::output::{Record, Row, Shape, Text};

/// Arguments of `mlxt fill-mask`.
#[derive(Debug, Args)]
#[command(mut_arg("texts", |arg| {
    arg.help("Texts with the model's mask token, such as [MASK] or <mask>: `mlxt inspect` names it")
}))]
pub(crate) struct FillMaskArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Guesses for each mask
    #[arg(long, value_name = "K", default_value = "5", value_parser = at_least_one)]
    top_k: usize,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    task: TaskArgs,
}

/// One text's guesses, best first, by mask.
#[derive(Serialize)]
struct Filled {
    index: u64,
    masks: Vec<Vec<Candidate>>,
}

/// One guess.
#[derive(Serialize)]
struct Candidate {
    token: String,
    token_id: u32,
    score: f32,
    sequence: String,
}

/// Fills all texts.
pub(crate) fn run(args: FillMaskArgs, verbosity: Verbosity) -> Result<()> {
    let Job { builder, output, progress } = args.task.job(args.model, FillMask::builder, "guesses", verbosity)?;
    let texts = args.input.source()?.open()?;
    let mut sink = output.open()?;
    let model = builder.build()?;
    progress.device(model.info());
    sink.begin(&Shape::table(
        "index  mask     score      id  token             sequence",
        &["index", "mask", "token", "token_id", "score", "sequence"],
    ))?;
    let record = |index, _: &str, masks: Vec<Vec<Guess>>| Filled {
        index,
        masks: masks.into_iter().map(|guesses| guesses.into_iter().map(Candidate::from).collect()).collect(),
    };
    each(texts, sink, &progress, |texts| model.fill(texts, args.top_k), record)
}

impl From<Guess> for Candidate {
    fn from(Guess { token, token_id, score, sequence }: Guess) -> Self {
        Self { token, token_id, score, sequence }
    }
}

impl Filled {
    /// All guesses with their mask's number.
    fn rows(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.masks.iter().enumerate().flat_map(|(mask, guesses)| guesses.iter().map(move |guess| (mask, guess)))
    }
}

impl Record for Filled {
    fn text(&self, out: &mut Text) {
        for (mask, Candidate { token, token_id, score, sequence }) in self.rows() {
            let (index, token, sequence) = (self.index, one_line(token), one_line(sequence));
            out.line(format_args!("{index:>5}  {mask:>4}  {score:>8.4}  {token_id:>6}  {token:<16}  {sequence}"));
        }
    }

    fn csv(&self, row: &mut Row<'_>) {
        for (mask, Candidate { token, token_id, score, sequence }) in self.rows() {
            row.field(self.index);
            row.field(mask);
            row.field(token);
            row.field(token_id);
            row.field(score);
            row.field(sequence);
            row.end();
        }
    }
}
