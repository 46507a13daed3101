//! `mlxt convert`: writes a checkpoint with its matrices packed as MLX packs them. MLX's own programs read it, and so does
//! this one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::DecimalBytes;
use mlx_transformers::{Description, Packed, Packing, Weights};
use serde_json::{Map, Value, json};

use crate::args::{HubArgs, Usage, Verbosity};
use crate::folder::{Partial, resolve};
use crate::one_line;
use crate::progress::{Lines, Progress};
use crate::say::say;

/// Names that files of weights end in, in any format.
const WEIGHTS: [&str; 11] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".gguf",
    ".pt",
    ".npz",
];

/// Folders with the weights of other programs.
const OTHERS: [&str; 3] = ["onnx", "openvino", "coreml"];

/// Weights that may share a scale, the fewest first.
const GROUPS: [usize; 3] = [32, 64, 128];

/// Bytes gathered before a write.
const BUFFER: usize = 1 << 20;

/// Arguments of `mlxt convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A model folder or a hub id
    #[arg(short, long, value_name = "MODEL")]
    model: String,
    /// Bits of a weight: 4 or 8
    #[arg(long, value_name = "N", value_parser = bits)]
    bits: usize,
    /// Weights that share a scale and a bias: 32, 64 or 128
    #[arg(long, value_name = "N", default_value = "64", value_parser = group)]
    group: usize,
    /// Pack tables of embeddings too, as MLX's own converters do: smaller, and further from the original
    #[arg(long)]
    embeddings: bool,
    /// The folder to write: a new one, or an empty one
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    hub: HubArgs,
}

/// Writes the folder.
pub(crate) fn run(args: &ConvertArgs, verbosity: Verbosity) -> Result<()> {
    let ConvertArgs { model, bits, group, embeddings, output, hub } = args;
    let packing = Packing { bits: *bits, group: *group, tables: *embeddings };
    let target = resolve(output)?;
    if fs::read_dir(&target).map_or_else(|_| target.exists(), |mut entries| entries.next().is_some()) {
        return Err(Usage::error(format!("{} is there and not an empty folder", output.display())));
    }
    let progress = Progress::new(verbosity, false);
    let description = hub.apply(Description::builder(model), &progress).build()?;
    progress.clear();
    if !description.model.misfit.is_empty() {
        bail!("{}", description.model.misfit);
    }
    let source = description.folder.path();
    let transformer = description.folder.transformer();
    if transformer != source {
        bail!("the weights of {model} are in a folder of their own: name {} to convert them", transformer.display());
    }
    if fs::canonicalize(source).is_ok_and(|source| target.starts_with(source)) {
        let inside =
            format!("{} is inside the model's own folder, which is copied: name one elsewhere", output.display());
        return Err(Usage::error(inside));
    }

    let partial = Partial::open(&target)?;
    let lines = Lines::new(verbosity);
    let written = partial.begin().and_then(|new| write(source, &new, packing, &lines));
    lines.clear();
    let done = match written {
        Ok(done) => done,
        Err(error) => {
            // What went wrong first is what is told.
            let _ = partial.clear();
            return Err(error);
        }
    };
    partial.finish(&target)?;
    if verbosity.quiet {
        return Ok(());
    }
    say(report(&done, description.model.bytes(), packing, output))
}

/// All files of the new folder.
fn write(source: &Path, new: &Path, packing: Packing, lines: &Lines) -> Result<Packed> {
    let weights = Weights::open(source)?;
    copy(source, new)?;
    let config = source.join("config.json");
    let text = fs::read(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let mut settings: Map<String, Value> =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", config.display()))?;
    let quantisation = json!({ "group_size": packing.group, "bits": packing.bits, "mode": "affine" });
    // Twice, as MLX's converters do: programs look for either.
    for name in ["quantization", "quantization_config"] {
        settings.insert(name.into(), quantisation.clone());
    }
    let settings = serde_json::to_string_pretty(&settings)? + "\n";
    create(&new.join("config.json"), |out| Ok(out.write_all(settings.as_bytes())?))?;
    let done = create(&new.join("model.safetensors"), |out| {
        Ok(weights.pack(packing, out, &mut |module| lines.hear(&format!("packing {module}")))?)
    })?;
    if done.packed == 0 {
        // Its config.json would say that it is packed.
        let why = unfit(&done, packing).unwrap_or_else(|| "it has no matrices of linear layers".into());
        bail!("nothing in {} can be packed: {why}", source.display());
    }
    Ok(done)
}

/// Writes a file and waits until the disk has it.
fn create<R>(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<R>) -> Result<R> {
    let result = || -> Result<R> {
        let mut out = BufWriter::with_capacity(BUFFER, File::create(path)?);
        let result = write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(result)
    };
    result().with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a model's folder but its weights and `config.json`; folders within it (of sentence-transformers) whole.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("cannot copy {}", from.display());
    for entry in fs::read_dir(from).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(cannot)?.is_dir() {
            if !name.starts_with('.') && !OTHERS.contains(&name.as_str()) {
                copy_whole(&path, &target)?;
            }
        } else if path.is_file() && name != "config.json" && !WEIGHTS.iter().any(|end| name.ends_with(end)) {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Copies a folder's files and folders; links to folders are left out.
fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("cannot copy {}", from.display());
    fs::create_dir(to).with_context(cannot)?;
    for entry in fs::read_dir(from).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let target = to.join(entry.file_name());
        if entry.file_type().with_context(cannot)?.is_dir() {
            copy_whole(&entry.path(), &target)?;
        } else if entry.path().is_file() {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// What was done, in lines.
fn report(done: &Packed, before: u64, packing: Packing, output: &Path) -> String {
    let Packed { packed, kept, bytes, .. } = done;
    let mut lines = vec![format!(
        "packed  {packed} matrices, {} bits in groups of {}; {kept} tensors are as they were",
        packing.bits, packing.group
    )];
    lines.extend(unfit(done, packing).map(|why| format!("        {why}")));
    lines.push(format!("size    {} before, {} now", DecimalBytes(before), DecimalBytes(*bytes)));
    lines.push(format!("folder  {}", output.display()));
    lines.join("\n")
}

/// Which tensors are not packed for want of whole groups, and what may help.
fn unfit(done: &Packed, packing: Packing) -> Option<String> {
    let (count, first) = (done.unfit.len(), one_line(done.unfit.first()?));
    let advice = match packing.group {
        group if group == GROUPS[0] => "and there are no smaller ones",
        _ => "a smaller --group may take them",
    };
    Some(format!("{count} of its tensors have inputs that are no whole groups ({first} ..): {advice}"))
}

/// Bits that can be asked for.
fn bits(value: &str) -> Result<usize, String> {
    one_of(value, &[4, 8])
}

/// Groups that can be asked for.
fn group(value: &str) -> Result<usize, String> {
    one_of(value, &GROUPS)
}

fn one_of(value: &str, known: &[usize]) -> Result<usize, String> {
    value.parse().ok().filter(|n| known.contains(n)).ok_or_else(|| format!("must be one of {known:?}"))
}
