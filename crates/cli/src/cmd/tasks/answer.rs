//! `mlxt answer`: the parts of a context that answer a question best.
//!
//! One question and one context, from the options: files of texts have one column, and this takes two.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Answer, QuestionAnswerer};
use serde::Serialize;

use super::{Job, TaskArgs};
use crate::args::{ModelArgs, Verbosity, at_least_one};
use crate::one_line;
use crate::output::{Record, Row, Shape, Text};

/// Arguments of `mlxt answer`.
#[derive(Debug, Args)]
#[command(mut_arg("max_length", |arg| {
    arg.help("The most tokens of the question with a piece of the context [default: 384, or what the model takes]")
}))]
#[command(mut_arg("truncate", |arg| arg.help("Changes nothing: a context of any length is read in pieces")))]
pub(crate) struct AnswerArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The question
    #[arg(long, value_name = "TEXT")]
    question: String,
    /// The text to answer it from
    #[arg(long, value_name = "TEXT")]
    context: String,
    /// The most answers
    #[arg(long, value_name = "K", default_value = "1", value_parser = at_least_one)]
    top_k: usize,
    /// Tokens by which pieces of a long context overlap [default: 128, at most half of --max-length]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Let "there is no answer" be one, with an empty text
    #[arg(long)]
    handle_impossible_answer: bool,
    #[command(flatten)]
    task: TaskArgs,
}

/// The answers, best first.
#[derive(Serialize)]
struct Answered {
    index: u64,
    answers: Vec<Part>,
}

/// A part of the context.
#[derive(Serialize)]
struct Part {
    answer: String,
    score: f32,
    start: usize,
    end: usize,
}

/// Answers the question.
pub(crate) fn run(args: AnswerArgs, verbosity: Verbosity) -> Result<()> {
    let Job { builder, output, progress } =
        args.task.job(args.model, QuestionAnswerer::builder, "answers", verbosity)?;
    let mut builder = builder.handle_impossible_answer(args.handle_impossible_answer);
    if let Some(stride) = args.stride {
        builder = builder.stride(stride);
    }
    let mut sink = output.open()?;
    let model = builder.build()?;
    progress.device(model.info());
    sink.begin(&Shape::table("index     score  start    end  answer", &["index", "answer", "score", "start", "end"]))?;
    let answers = model.answer(&[(args.question, args.context)], args.top_k)?;
    progress.clear();
    for (index, answers) in (0..).zip(answers) {
        sink.push(&Answered { index, answers: answers.into_iter().map(Part::from).collect() })?;
    }
    sink.finish()
}

impl From<Answer> for Part {
    fn from(Answer { answer, score, start, end }: Answer) -> Self {
        Self { answer, score, start, end }
    }
}

impl Record for Answered {
    fn text(&self, out: &mut Text) {
        for Part { answer, score, start, end } in &self.answers {
            let (index, answer) = (self.index, one_line(answer));
            out.line(format_args!("{index:>5}  {score:>8.4}  {start:>5}  {end:>5}  {answer}"));
        }
    }

    fn csv(&self, row: &mut Row<'_>) {
        for Part { answer, score, start, end } in &self.answers {
            row.field(self.index);
            row.field(answer);
            row.field(score);
            row.field(start);
            row.field(end);
            row.end();
        }
    }
}
