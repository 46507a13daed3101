//! `mlxt setup`: gets what this program can use and does not carry.

use anyhow::Result;
use clap::{Args, Subcommand};
use mlx_transformers::mlx_folder;

use crate::args::Verbosity;
use crate::mlx::{self, Variant};
use crate::progress::Lines;
use crate::say::say;

/// Arguments of `mlxt setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    #[command(subcommand)]
    what: What,
}

/// What to get.
#[derive(Debug, Subcommand)]
enum What {
    /// MLX, for the devices mlx:cpu and mlx:gpu (Metal or CUDA); 25 MB, with CUDA 3 GB
    Mlx(MlxArgs),
}

/// Arguments of `mlxt setup mlx`.
#[derive(Debug, Args)]
struct MlxArgs {
    /// Which build [default: metal on a Mac; on Linux what the driver of NVIDIA allows, else cpu]
    #[arg(long, value_name = "BUILD")]
    variant: Option<Variant>,
}

/// Gets it.
pub(crate) fn run(args: &SetupArgs, verbosity: Verbosity) -> Result<()> {
    let What::Mlx(MlxArgs { variant }) = &args.what;
    let (variant, why) = match variant {
        Some(variant) => (*variant, "asked for".to_owned()),
        None => Variant::of_this_machine()?,
    };
    let folder = mlx_folder();
    let there = mlx::holds(&folder, variant);
    if !there {
        let lines = Lines::new(verbosity);
        mlx::install(&folder, variant, &mut |line| lines.hear(line))?;
        lines.clear();
    }
    let name = clap::ValueEnum::to_possible_value(&variant).map_or_else(String::new, |v| v.get_name().to_owned());
    let (release, ready) = (mlx::RELEASE, if there { "is there already" } else { "is ready" });
    say(format_args!("MLX {release} {name} ({why}) {ready}, in {}", folder.display()))
}
