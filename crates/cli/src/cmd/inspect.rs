//! `mlxt inspect`: what a model is, from its files alone. Nothing is loaded onto a device, so it is quick for any size,
//! and a checkpoint that does not fit its `config.json` is described too, with everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{DecimalBytes, HumanCount};
use mlx_transformers::{Description, Inspection, Pooling, Role, TensorInfo, is_table};
use serde::Serialize;
use serde_json::Value;

use super::origin;
use crate::args::{HubArgs, OutputArgs, Verbosity};
use crate::one_line;
use crate::output::Text;
use crate::progress::Progress;

/// Arguments of `mlxt inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A model folder or a hub id
    #[arg(value_name = "MODEL")]
    model: String,
    /// List all tensors
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report {
    model: String,
    folder: String,
    origin: &'static str,
    model_type: &'static str,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    vocab_size: usize,
    max_positions: usize,
    /// The most tokens of a text to embed, unless `--max-length` says otherwise.
    max_length: Option<usize>,
    /// `config.json` as it is.
    config: Value,
    /// Values in the base model's weights.
    parameters: u64,
    /// How the weights in the files are packed, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantised: Option<String>,
    tensors: Tensors,
    /// Bytes of the base model's weights, by how they are kept. Activations come on top: some megabytes a batch.
    memory: BTreeMap<&'static str, u64>,
    tokenizer: Tokenizer,
    sentence: Sentence,
    /// Commands that run this model.
    tasks: Vec<&'static str>,
    /// Parts of a task's own, by name.
    task_heads: BTreeSet<String>,
    /// Why the model cannot be loaded, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Tensors {
    count: usize,
    bytes: u64,
    files: usize,
    dtypes: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<Tensor>>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    bytes: usize,
    file: String,
    role: &'static str,
}

/// What the tokenizer is, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Tokenizer {
    Usable { kind: &'static str, vocab_size: usize, special_tokens: usize, mask_token: Option<String> },
    Unusable { problem: String },
}

/// How `mlxt embed` makes vectors, or why it cannot.
#[derive(Serialize)]
#[serde(untagged)]
enum Sentence {
    Usable { poolings: Vec<&'static str>, normalize: bool, from_folder: bool, prompt: String },
    Unusable { problem: String },
}

/// Describes the model.
pub(crate) fn run(args: InspectArgs, verbosity: Verbosity) -> Result<()> {
    let document = args.output.document()?;
    let progress = Progress::new(verbosity, false);
    let description = args.hub.apply(Description::builder(&args.model), &progress).build()?;
    progress.clear();
    let report = report(args.model, &description, args.tensors)?;
    document.write(&report, || describe(&report))
}

fn report(model: String, description: &Description, list: bool) -> Result<Report> {
    let Description { folder, model: inspection, tokenizer, sentence, max_length, .. } = description;
    let config = &inspection.config;
    let tokenizer = match tokenizer {
        Ok(tokenizer) => Tokenizer::Usable {
            kind: tokenizer.kind(),
            vocab_size: tokenizer.vocab_size(),
            special_tokens: tokenizer.special_tokens(),
            mask_token: tokenizer.mask_token().map(str::to_owned),
        },
        Err(error) => Tokenizer::Unusable { problem: one_line(&error.to_string()) },
    };
    let sentence = match sentence {
        Ok(sentence) => Sentence::Usable {
            poolings: sentence.poolings.iter().map(|&p| pooling(p)).collect(),
            normalize: sentence.normalizes(),
            from_folder: sentence.from_folder,
            prompt: sentence.prompt.clone(),
        },
        Err(error) => Sentence::Unusable { problem: one_line(&error.to_string()) },
    };
    let fits = inspection.misfit.is_empty();
    let mut tasks = Vec::new();
    if matches!(tokenizer, Tokenizer::Usable { .. }) {
        tasks.push("tokenize");
        if fits {
            tasks.push("features");
        }
        if fits && matches!(sentence, Sentence::Usable { .. }) {
            tasks.push("embed");
        }
        if fits {
            tasks.extend(inspection.tasks.iter().map(|task| task.name()));
        }
    }
    let parameters = inspection.parameters();
    // Only the weights of products are kept in half the size: tables are read where they lie, in the mapped file.
    let product = |tensor: &TensorInfo| tensor.shape.len() == 2 && !is_table(&tensor.name);
    let of_products: u64 = inspection.base().filter(|(t, _)| product(t)).map(|(_, values)| values).sum();
    let halved = parameters * 4 - of_products * 2;
    let heads = inspection.tensors.iter().filter(|(_, role)| *role == Role::Head);
    Ok(Report {
        model,
        folder: folder.path().display().to_string(),
        origin: origin(folder.origin()),
        model_type: config.model_type(),
        hidden_size: config.hidden_size(),
        layers: config.layers(),
        heads: config.heads(),
        vocab_size: config.vocab_size(),
        max_positions: config.max_tokens(),
        max_length: *max_length,
        config: config_json(&folder.transformer())?,
        parameters,
        quantised: config.quantisation().map(ToString::to_string),
        tensors: tensors(inspection, list),
        memory: BTreeMap::from([("f32", parameters * 4), ("bf16", halved), ("f16", halved)]),
        tokenizer,
        sentence,
        tasks,
        task_heads: heads.map(|(tensor, _)| head(&tensor.name)).collect(),
        problem: (!fits).then(|| one_line(&inspection.misfit.to_string())),
    })
}

fn config_json(folder: &Path) -> Result<Value> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
}

fn tensors(inspection: &Inspection, list: bool) -> Tensors {
    let mut dtypes = BTreeMap::new();
    for (tensor, _) in &inspection.tensors {
        *dtypes.entry(tensor.dtype.clone()).or_default() += 1;
    }
    let files: BTreeSet<&Path> = inspection.tensors.iter().map(|(tensor, _)| tensor.file.as_path()).collect();
    Tensors {
        count: inspection.tensors.len(),
        bytes: inspection.bytes(),
        files: files.len(),
        dtypes,
        list: list.then(|| inspection.tensors.iter().map(|(tensor, role)| Tensor::new(tensor, *role)).collect()),
    }
}

impl Tensor {
    fn new(tensor: &TensorInfo, role: Role) -> Self {
        let TensorInfo { name, dtype, shape, bytes, file } = tensor;
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let role = match role {
            Role::Base => "base",
            Role::Head => "head",
            Role::Buffer => "unused",
            Role::Misfit => "misfit",
        };
        Self { name: name.clone(), dtype: dtype.clone(), shape: shape.clone(), bytes: *bytes, file, role }
    }
}

/// The part of a tensor's name that tells a head: its first word, or two where the first says nothing.
fn head(name: &str) -> String {
    let words = if name.starts_with("cls.") { 2 } else { 1 };
    name.split('.').take(words).collect::<Vec<_>>().join(".")
}

fn pooling(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Max => "max",
        Pooling::Cls => "cls",
        Pooling::Last => "last",
        Pooling::MeanSqrtLength => "mean over square root of length",
        Pooling::WeightedMean => "mean weighted by position",
    }
}

fn describe(report: &Report) -> Text {
    let mut text = Text::default();
    text.line(format_args!("{}", report.model));
    let mut line = |name: &str, arguments: Arguments<'_>| {
        text.line(format_args!("  {name:<13} {}", one_line(&arguments.to_string())));
    };
    let Report { hidden_size, layers, heads, vocab_size, max_positions, tensors, .. } = report;
    line("folder", format_args!("{} ({})", report.folder, report.origin));
    line(
        "architecture",
        format_args!("{}: {layers} layers, {heads} heads, hidden size {hidden_size}", report.model_type),
    );
    line("parameters", format_args!("{} in the base model", HumanCount(report.parameters)));
    let dtypes: Vec<String> = tensors.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    let plural = if tensors.files == 1 { "" } else { "s" };
    let (count, files, bytes) = (tensors.count, tensors.files, DecimalBytes(tensors.bytes));
    line("tensors", format_args!("{count} ({}), {bytes} in {files} file{plural}", dtypes.join(", ")));
    if let Some(quantised) = &report.quantised {
        line("quantised", format_args!("{quantised}; the CPU backend unpacks them as it loads them"));
    }
    let memory: Vec<String> =
        report.memory.iter().map(|(dtype, b)| format!("{} as {dtype}", DecimalBytes(*b))).collect();
    line("memory", format_args!("{} for weights", memory.join(", ")));
    match &report.tokenizer {
        Tokenizer::Usable { kind, vocab_size: known, special_tokens, mask_token } => {
            let mask = mask_token.as_deref().map_or_else(String::new, |mask| format!(", mask {mask}"));
            line("tokenizer", format_args!("{kind} of {known} tokens, {special_tokens} special ones a text{mask}"));
        }
        Tokenizer::Unusable { problem } => line("tokenizer", format_args!("cannot be used: {problem}")),
    }
    line("vocabulary", format_args!("{vocab_size} ids in the model"));
    let limit = report.max_length.map_or_else(String::new, |limit| format!("{limit} tokens by default, "));
    line("longest text", format_args!("{limit}{max_positions} positions"));
    match &report.sentence {
        Sentence::Usable { poolings, normalize, from_folder, prompt } => {
            let unit = if *normalize { ", normalised" } else { "" };
            let source = if *from_folder { "from modules.json" } else { "a guess: no modules.json" };
            let prompt = if prompt.is_empty() { String::new() } else { format!(", prompt {prompt:?}") };
            line("pooling", format_args!("{}{unit} ({source}){prompt}", poolings.join(" beside ")));
        }
        Sentence::Unusable { problem } => line("pooling", format_args!("cannot be used: {problem}")),
    }
    line(
        "can do",
        format_args!("{}", if report.tasks.is_empty() { "nothing".into() } else { report.tasks.join(", ") }),
    );
    if !report.task_heads.is_empty() {
        let heads: Vec<&str> = report.task_heads.iter().map(String::as_str).collect();
        line("task heads", format_args!("{}", heads.join(", ")));
    }
    if let Some(problem) = &report.problem {
        line("problem", format_args!("{problem}"));
    }
    for tensor in report.tensors.list.iter().flatten() {
        let Tensor { name, dtype, shape, role, .. } = tensor;
        text.line(format_args!("  {dtype:<5} {role:<6} {} {shape:?}", one_line(name)));
    }
    text
}
