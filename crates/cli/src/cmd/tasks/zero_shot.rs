//! `mlxt zero-shot`: texts classified by any labels, with a model for natural language inference.

use anyhow::Result;
use clap::Args;
use mlx_transformers::{Error, ZeroShotClassifier};

use super::classify::Labelled;
use super::{Job, TaskArgs};
use crate::args::{Call, InputArgs, ModelArgs, Usage};

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
pub(crate) fn run(args: ZeroShotArgs, call: &Call) -> Result<()> {
    let source = args.input.source()?;
    let Job { builder, work } = args.task.job(args.model, ZeroShotClassifier::builder, source, "labels", call)?;
    let mut builder = builder.multi_label(args.multi_label);
    if let Some(template) = args.template {
        builder = builder.template(template);
    }
    let model = builder.build().map_err(|error| match error {
        Error::Template { .. } => Usage::error(error.to_string()),
        other => other.into(),
    })?;
    work.each(model.info(), &Labelled::shape(), |rows| model.classify(rows, &args.labels), Labelled::new)
}
