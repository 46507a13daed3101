//! `mlxt study setup PEER`: installs what an engine needs.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use mlxt_study::peers::Peers;
use mlxt_study::setup;

use super::home;
use crate::args::Verbosity;

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
        println!("{} is this program itself: there is nothing to set up", peer.title);
        return Ok(());
    };
    let visible = std::io::stderr().is_terminal() && !verbosity.quiet;
    let bar = if visible { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(200));
    let folder = setup::setup(&home()?, peers.environment(environment)?, &mut |line| {
        bar.set_message(crate::one_line(line));
        if verbosity.verbose {
            bar.suspend(|| eprintln!("{}", crate::one_line(line)));
        }
    })?;
    bar.finish_and_clear();
    println!("{} is ready in {}", peer.title, folder.display());
    Ok(())
}
