//! Everything that can be wrong with a checkpoint or a batch: each variant is one way, with what was expected and found.

use std::io;
use std::path::PathBuf;

use safetensors::SafeTensorError;

use crate::tasks::{Task, listed};
use crate::weights::{Misfit, TorchError};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from a checkpoint, or from the tokens given to a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder has no `config.json`.
    #[error("{} has no config.json: a model folder holds config.json, tokenizer files and model.safetensors", folder.display())]
    NoConfig {
        /// The folder.
        folder: PathBuf,
    },
    /// `config.json` or the index of shards is not the JSON it should be.
    #[error("{} is not valid: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Where it stops being valid.
        source: serde_json::Error,
    },
    /// A setting of `config.json` that is out of range or that no model here supports.
    #[error("{}: {name} is {found}, but must be {expected}", file.display())]
    Setting {
        /// The file.
        file: PathBuf,
        /// The setting's name in the file.
        name: String,
        /// What is supported.
        expected: String,
        /// Its value, as JSON.
        found: String,
    },
    /// The folder has no weights.
    #[error("{} has no weights: expected model.safetensors, or model.safetensors.index.json and its shards (or pytorch_model.bin likewise)", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder has weights only in a format that is not read.
    #[error(
        "{} is neither safetensors nor pytorch_model.bin, the formats that are read: load it with transformers and call \
         save_pretrained(folder), which writes model.safetensors", file.display()
    )]
    OtherFormat {
        /// The file that was found instead.
        file: PathBuf,
    },
    /// A file of `torch.save` is damaged, of a kind that is not read, or asks for more than tensors.
    #[error("{} cannot be read: {source}", file.display())]
    Torch {
        /// The file.
        file: PathBuf,
        /// Why.
        source: TorchError,
    },
    /// A safetensors file is cut short or damaged.
    #[error("{} is not a valid safetensors file ({source}; {found} bytes): it is cut short or damaged, download it again", file.display())]
    Safetensors {
        /// The file.
        file: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// The index names a shard outside the model's folder.
    #[error("{} names the shard {shard:?}, which is not a file name inside its folder", index.display())]
    ShardOutside {
        /// The index.
        index: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// The index names a shard that is not there.
    #[error("{} names the shard {shard:?}, which is not in its folder: download it too", index.display())]
    ShardMissing {
        /// The index.
        index: PathBuf,
        /// The name it gives.
        shard: String,
    },
    /// A shard lacks tensors that the index promises.
    #[error("{} lacks {count} of the tensors its index promises, such as {name:?}: download both again", shard.display())]
    NotInShard {
        /// The shard.
        shard: PathBuf,
        /// The first of them by name.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// Two shards hold a tensor of the same name.
    #[error("tensor {name:?} is in {} and again in {}: keep the shards of one checkpoint only", first.display(), second.display())]
    Duplicate {
        /// The tensor.
        name: String,
        /// One shard.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Weights that are to be packed are packed already.
    #[error("{name:?} is packed already: convert the checkpoint that was not")]
    Packed {
        /// The first of them by name.
        name: String,
    },
    /// A file could not be written.
    #[error("cannot write {what}: {source}")]
    Write {
        /// What was written.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The weights are not those of the model that `config.json` describes.
    #[error("{0}")]
    Misfit(Box<Misfit>),
    /// A sequence has more tokens than the model has positions.
    #[error("sequence {sequence} has {found} tokens, and the model takes at most {limit}: truncate it")]
    TooLong {
        /// Which sequence of the batch.
        sequence: usize,
        /// Its tokens.
        found: usize,
        /// The most the model takes.
        limit: usize,
    },
    /// An id without a row in one of the model's tables: the tokenizer belongs to another model.
    #[error("{what} {found} at token {position} of sequence {sequence} is outside the model's 0..{limit}")]
    Id {
        /// `token id` or `token type id`.
        what: &'static str,
        /// Which sequence of the batch.
        sequence: usize,
        /// Which token of the sequence.
        position: usize,
        /// The id.
        found: u32,
        /// How many the model has.
        limit: usize,
    },
    /// The checkpoint has no pooler.
    #[error("this checkpoint has no pooler (pooler.dense): use another pooling")]
    NoPooler,
    /// A task that the checkpoint has no head for.
    #[error("this checkpoint cannot do {asked}: it is made for {}", listed(can))]
    NoSuchTask {
        /// What was asked for.
        asked: Task,
        /// What it can do, besides embeddings and features, which every encoder can.
        can: Vec<Task>,
    },
    /// The model was loaded without a task's head.
    #[error("the model was loaded without a task's head")]
    NoHead,
    /// The backend's own.
    #[error(transparent)]
    Backend(#[from] mlxt_backend::Error),
}
