//! `mlxt fill-mask`: the most probable tokens for each mask of a text.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{FillMask, Guess};
use serde::Serialize;

use super::{Job, TaskArgs};
use crate::args::{Call, InputArgs, ModelArgs, at_least_one};
use crate::one_line;
use crate::output::{Kind, Record, Shape, Text, Value};

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
pub(crate) fn run(args: FillMaskArgs, call: &Call) -> Result<()> {
    let source = args.input.source()?;
    let Job { builder, work } = args.task.job(args.model, FillMask::builder, source, "guesses", call)?;
    let model = builder.build()?;
    let shape = Shape::table(
        "index  mask     score      id  token             sequence",
        &[
            ("index", Kind::Integer),
            ("mask", Kind::Integer),
            ("token", Kind::Text),
            ("token_id", Kind::Integer),
            ("score", Kind::Float),
            ("sequence", Kind::Text),
        ],
    );
    let fill = |rows: &[_]| model.fill(rows, args.top_k);
    work.each(model.info(), &shape, fill, |row, masks| Filled::new(row.index, masks))
}

impl From<Guess> for Candidate {
    fn from(Guess { token, token_id, score, sequence }: Guess) -> Self {
        Self { token, token_id, score, sequence }
    }
}

impl Filled {
    fn new(index: u64, masks: Vec<Vec<Guess>>) -> Self {
        Self {
            index,
            masks: masks.into_iter().map(|guesses| guesses.into_iter().map(Candidate::from).collect()).collect(),
        }
    }

    /// All guesses with their mask's number.
    fn candidates(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.masks.iter().enumerate().flat_map(|(mask, guesses)| guesses.iter().map(move |guess| (mask, guess)))
    }
}

impl Record for Filled {
    fn text(&self, out: &mut Text) {
        for (mask, Candidate { token, token_id, score, sequence }) in self.candidates() {
            let (index, token, sequence) = (self.index, one_line(token), one_line(sequence));
            out.line(format_args!("{index:>5}  {mask:>4}  {score:>8.4}  {token_id:>6}  {token:<16}  {sequence}"));
        }
    }

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        for (mask, Candidate { token, token_id, score, sequence }) in self.candidates() {
            let (index, mask, id, score) = (self.index.into(), mask.into(), (*token_id).into(), (*score).into());
            out(&[index, mask, token.into(), id, score, sequence.into()]);
        }
    }
}
