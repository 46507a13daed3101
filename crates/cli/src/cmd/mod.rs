//! The commands: each file turns its arguments into a config that holds all defaults and checks, and makes one call.
//!
//! `stream.rs` is the loop that commands over texts share.

mod demo;
mod doctor;
mod embed;
mod features;
mod inspect;
mod pull;
mod stream;
mod tokenize;

use anyhow::Result;
use clap::Subcommand;
use mlx_transformers::Origin;

use crate::args::Verbosity;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sentence embeddings: one vector per text
    Embed(embed::EmbedArgs),
    /// Last hidden states: one vector per token
    Features(features::FeaturesArgs),
    /// Token ids and tokens, as the model sees a text
    Tokenize(tokenize::TokenizeArgs),
    /// What a model is: configuration, tensors, memory, what it can do
    Inspect(inspect::InspectArgs),
    /// Download a model into the Hugging Face cache
    Pull(pull::PullArgs),
    /// Every device: usable, or why not and what mends it
    Doctor(doctor::DoctorArgs),
    /// A real model on built-in sentences: start here
    Demo(demo::DemoArgs),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, verbosity: Verbosity) -> Result<()> {
        match self {
            Self::Embed(args) => embed::run(args, verbosity),
            Self::Features(args) => features::run(args, verbosity),
            Self::Tokenize(args) => tokenize::run(args, verbosity),
            Self::Inspect(args) => inspect::run(args, verbosity),
            Self::Pull(args) => pull::run(args, verbosity),
            Self::Doctor(args) => doctor::run(args),
            Self::Demo(args) => demo::run(&args, verbosity),
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
