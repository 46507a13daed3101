//! `mlxt answer`: the parts of a context that answer a question best.
//!
//! One question and one context from the options, or a row for each question from a file.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Answer, QuestionAnswerer};
use serde::Serialize;

use super::{Job, TaskArgs};
use crate::args::{Call, FileArgs, ModelArgs, Usage, at_least_one, within};
use crate::input::{Row, Source};
use crate::one_line;
use crate::output::{Kind, Record, Shape, Text, Value};

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
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    question: Option<String>,
    /// The text to answer it from
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    context: Option<String>,
    #[command(flatten)]
    file: FileArgs,
    /// The field that holds the question in the input
    #[arg(long, value_name = "NAME", default_value = "question", requires = "input")]
    question_column: String,
    /// The field that holds the context in the input
    #[arg(long, value_name = "NAME", default_value = "context", requires = "input")]
    context_column: String,
    /// The most answers
    #[arg(long, value_name = "K", default_value = "1", value_parser = at_least_one)]
    top_k: usize,
    /// Tokens by which pieces of a long context overlap [default: 128, at most half of --max-length]
    #[arg(long, value_name = "N", value_parser = |n: &str| within(0..=usize::MAX, n))]
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

/// Answers all questions.
pub(crate) fn run(args: AnswerArgs, call: &Call) -> Result<()> {
    let source = match (args.question, args.context) {
        (Some(question), Some(context)) => Source::Arguments(vec![vec![question, context]]),
        _ if args.file.is_given() => args.file.source(vec![args.question_column, args.context_column], false)?,
        (Some(_), None) => {
            return Err(Usage::error("no context: give the text to answer the question from (--context)"));
        }
        (None, Some(_)) => return Err(Usage::error("no question: give --question too")),
        (None, None) => {
            let what = "no question: give --question and --context, or -i FILE with both in columns";
            return Err(Usage::error(what));
        }
    };
    let Job { builder, work } = args.task.job(args.model, QuestionAnswerer::builder, source, "answers", call)?;
    let mut builder = builder.handle_impossible_answer(args.handle_impossible_answer);
    if let Some(stride) = args.stride {
        builder = builder.stride(stride);
    }
    let model = builder.build()?;
    let shape = Shape::table(
        "index     score  start    end  answer",
        &[
            ("index", Kind::Integer),
            ("answer", Kind::Text),
            ("score", Kind::Float),
            ("start", Kind::Integer),
            ("end", Kind::Integer),
        ],
    );
    let answer = |rows: &[Row]| {
        let questions: Vec<(&str, &str)> = rows.iter().map(|row| (row.field(0), row.field(1))).collect();
        model.answer(&questions, args.top_k)
    };
    work.each(model.info(), &shape, answer, |row, answers| Answered {
        index: row.index,
        answers: answers.into_iter().map(Part::from).collect(),
    })
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

    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>])) {
        for Part { answer, score, start, end } in &self.answers {
            out(&[self.index.into(), answer.into(), (*score).into(), (*start).into(), (*end).into()]);
        }
    }
}
