//! `mlxt pull`: brings a model into the Hugging Face cache, or brings it up to date there, and says where it lies.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::origin;
use crate::args::{HubArgs, OutputArgs, Verbosity};
use crate::output::Text;
use crate::progress::Progress;

/// Arguments of `mlxt pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A hub id such as sentence-transformers/all-MiniLM-L6-v2
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where a model lies now.
#[derive(Serialize)]
struct Pulled {
    model: String,
    folder: String,
    origin: &'static str,
}

/// Downloads what is missing.
pub(crate) fn run(args: PullArgs, verbosity: Verbosity) -> Result<()> {
    let document = args.output.document()?;
    let progress = Progress::new(verbosity, false);
    let folder = args.hub.hub().pull(&args.model, args.hub.revision.as_deref(), |event| progress.hear(event))?;
    progress.clear();
    let pulled =
        Pulled { model: args.model, folder: folder.path().display().to_string(), origin: origin(folder.origin()) };
    document.write(&pulled, || {
        let mut text = Text::default();
        text.line(format_args!("{}", pulled.folder));
        text
    })
}
