//! `mlxt zero-shot`: texts classified by any labels, with a model for natural language inference.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Error, ZeroShotClassifier};

use super::classify::Labelled;
use super::{Job, TaskArgs, each};
use crate::args::{InputArgs, ModelArgs, Usage, Verbosity};

/// Arguments of `mlxt zero-shot`.
#[derive(Debug, Args)]
pub(crate) struct ZeroShotArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A label to choose from; give one --label for each
    #[arg(long = "label", value_name = "LABEL", required = true)]
    labels: Vec<String>,
    /// Judge each label for itself: several may be right, or none
    #[arg(long)]
    multi_label: bool,
    /// The sentence made of a label, which goes in the place of {} [default: This example is {}.]
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    task: TaskArgs,
}

/// Classifies all texts.
pub(crate) fn run(args: ZeroShotArgs, verbosity: Verbosity) -> Result<()> {
    let Job { builder, output, progress } =
        args.task.job(args.model, ZeroShotClassifier::builder, "labels", verbosity)?;
    let mut builder = builder.multi_label(args.multi_label);
    if let Some(template) = args.template {
        builder = builder.template(template);
    }
    let texts = args.input.source()?.open()?;
    let mut sink = output.open()?;
    let model = builder.build().map_err(|error| match error {
        Error::Template { .. } => Usage::error(error.to_string()),
        other => other.into(),
    })?;
    progress.device(model.info());
    sink.begin(&Labelled::shape())?;
    each(texts, sink, &progress, |texts| model.classify(texts, &args.labels), Labelled::new)
}
