//! `mlxt study setup PEER`: installs what an engine needs.

use anyhow::Result;
use clap::Args;
use mlxt_study::peers::Peers;
use mlxt_study::setup;

use super::home;
use crate::args::Verbosity;
use crate::progress::Lines;
use crate::say::say;

/// Arguments of `mlxt study setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Whose: `mlxt study peers` lists them
    #[arg(value_name = "PEER")]
    peer: String,
}

/// Installs.
pub(crate) fn run(args: &SetupArgs, verbosity: Verbosity) -> Result<()> {
    let peers = Peers::built_in()?;
    let peer = peers.find(&args.peer)?;
    let Some(environment) = peer.environment() else {
        return say(format_args!("{} is this program itself: there is nothing to set up", peer.title));
    };
    let lines = Lines::new(verbosity);
    let folder = setup::setup(&home()?, peers.environment(environment)?, &mut |line| lines.hear(line))?;
    lines.clear();
    say(format_args!("{} is ready in {}", peer.title, folder.display()))
}
