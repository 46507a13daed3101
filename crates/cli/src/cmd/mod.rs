//! The commands: each file turns its arguments into a config that holds all defaults and checks, and makes one call.
//!
//! `stream.rs` is the loop that commands over texts share, `tasks/` has the commands of models with a head.

mod convert;
mod demo;
mod doctor;
mod embed;
mod features;
mod inspect;
mod pull;
mod setup;
mod stream;
mod study;
mod tasks;
mod tokenize;
mod worker;

use anyhow::Result;
use clap::Subcommand;
use mlx_transformers::Origin;

use self::tasks::{answer, classify, fill_mask, ner, rerank, zero_shot};
use crate::args::Call;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sentence embeddings: one vector per text
    Embed(embed::EmbedArgs),
    /// Last hidden states: one vector per token
    Features(features::FeaturesArgs),
    /// The most probable tokens in the place of masks
    FillMask(fill_mask::FillMaskArgs),
    /// Scores for the labels a model was trained with, of texts or pairs
    Classify(classify::ClassifyArgs),
    /// Named entities, or other labels of tokens
    Ner(ner::NerArgs),
    /// The part of a context that answers a question
    Answer(answer::AnswerArgs),
    /// Documents by how well they answer a query, best first
    Rerank(rerank::RerankArgs),
    /// Scores for any labels, with a model for natural language inference
    ZeroShot(zero_shot::ZeroShotArgs),
    /// Token ids and tokens, as the model sees a text
    Tokenize(tokenize::TokenizeArgs),
    /// What a model is: configuration, tensors, memory, what it can do
    Inspect(inspect::InspectArgs),
    /// Write a checkpoint with its matrices packed in 4 or 8 bits, as MLX packs them
    Convert(convert::ConvertArgs),
    /// Download a model into the Hugging Face cache
    Pull(pull::PullArgs),
    /// Every device: usable, or why not and what mends it
    Doctor(doctor::DoctorArgs),
    /// Get what this program can use and does not carry: MLX
    Setup(setup::SetupArgs),
    /// The benchmark study: operations and models, on every engine of this machine, values checked
    Study(study::StudyArgs),
    /// This program as an engine of the study, for its runner
    #[command(hide = true)]
    Worker,
    /// A real model on built-in sentences: start here
    Demo(demo::DemoArgs),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, call: &Call) -> Result<()> {
        match self {
            Self::Embed(args) => embed::run(args, call),
            Self::Features(args) => features::run(args, call),
            Self::FillMask(args) => fill_mask::run(args, call),
            Self::Classify(args) => classify::run(args, call),
            Self::Ner(args) => ner::run(args, call),
            Self::Answer(args) => answer::run(args, call),
            Self::Rerank(args) => rerank::run(args, call),
            Self::ZeroShot(args) => zero_shot::run(args, call),
            Self::Tokenize(args) => tokenize::run(args, call),
            Self::Inspect(args) => inspect::run(args, call.verbosity),
            Self::Convert(args) => convert::run(&args, call.verbosity),
            Self::Pull(args) => pull::run(args, call.verbosity),
            Self::Doctor(args) => doctor::run(args),
            Self::Setup(args) => setup::run(&args, call.verbosity),
            Self::Study(args) => study::run(args, call.verbosity),
            Self::Worker => worker::run(),
            Self::Demo(args) => demo::run(&args, call.verbosity),
        }
    }
}

/// Where a model's files came from, in words.
fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Folder => "folder",
        Origin::Cache => "cache",
        Origin::Hub => "hub",
        Origin::Data => "data folder",
        Origin::Package => "Python package",
    }
}
