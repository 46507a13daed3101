//! `mlxt study peers`: who can take part here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::Args;
use mlxt_study::peers::{Home, Kind, Peers};
use mlxt_study::record::Variant;
use mlxt_study::runner::usable;
use serde::Serialize;

use super::{home, threads};
use crate::args::OutputArgs;
use crate::output::Text;

/// Arguments of `mlxt study peers`.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// An engine's mode on a device.
#[derive(Debug, Serialize)]
struct Found {
    peer: String,
    title: String,
    mode: String,
    device: String,
    dtypes: Vec<String>,
    models: bool,
    operations: bool,
    usable: bool,
    /// Its version, or why it cannot be used and what mends it.
    detail: String,
}

/// Starts each and hears who it is.
pub(crate) fn run(args: PeersArgs) -> Result<()> {
    let document = args.output.document()?;
    let (peers, home) = (Peers::built_in()?, home()?);
    let everyone = ["*/*/*/*".to_owned().try_into().map_err(|e: String| anyhow::anyhow!(e))?];
    let mut all: Vec<Found> = Vec::new();
    for (kind, variants) in [Kind::Models, Kind::Operations].map(|kind| (kind, peers.variants(kind, &everyone))) {
        for variant in variants {
            let same = |f: &Found| (&f.peer, &f.mode, &f.device) == (&variant.peer, &variant.mode, &variant.device);
            let place = all.iter().position(same).unwrap_or(all.len());
            if place == all.len() {
                all.push(find(&home, &peers, &variant)?);
            }
            let found = &mut all[place];
            if !found.dtypes.contains(&variant.dtype) {
                found.dtypes.push(variant.dtype);
            }
            match kind {
                Kind::Models => found.models = true,
                Kind::Operations => found.operations = true,
            }
        }
    }
    document.write(&all, || {
        let mut text = Text::default();
        for f in &all {
            let name = format!("{}/{}/{}", f.peer, f.mode, f.device);
            let state = if f.usable { "usable" } else { "no" };
            text.line(format_args!("{name:<30} {state:<7} {:<20} {} {}", f.dtypes.join(" "), f.title, f.detail));
        }
        text
    })
}

/// Starts a peer's mode on a device.
fn find(home: &Home, peers: &Peers, variant: &Variant) -> Result<Found> {
    let answer = usable(home, peers, variant, threads(None), &Arc::new(AtomicBool::new(false)));
    let (usable, detail) = match answer {
        Ok(info) => (true, format!("{} {}", info.version, info.detail).trim_end().to_owned()),
        Err(reason) => (false, crate::one_line(&reason)),
    };
    let Variant { peer, mode, device, .. } = variant.clone();
    let title = peers.find(&peer)?.title.clone();
    Ok(Found { peer, title, mode, device, dtypes: Vec::new(), models: false, operations: false, usable, detail })
}
