//! A checkpoint's tensors by name: one file or shards listed by an index, of safetensors or of `torch.save`, mapped
//! and not copied.
//!
//! What a model asks of them, and the one report of everything that does not fit, is in `loader.rs`; the files are read
//! in `file.rs` and `torch/`.

mod file;
mod loader;
mod pack;
mod torch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use mlxt_backend::{DType, HostTensor, LinearPart};
use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::{Error, Result};
use file::{Entry, Mapping};
pub(crate) use loader::Loader;
pub use loader::{Misfit, Misshapen, NamedShape, Role, Untyped};
pub use pack::{Packed, Packing, is_table};
pub use torch::TorchError;

/// Weights in one file and the index of several, in the order in which `transformers` looks for them.
const FORMATS: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];
/// Formats that hold the same weights and are not read.
const OTHERS: [&str; 3] = ["tf_model.h5", "flax_model.msgpack", "model.ckpt.index"];

/// What a checkpoint says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its element type, as safetensors calls it: `F32`, `BF16`, `I64`.
    pub dtype: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: usize,
    /// The file it is in.
    pub file: PathBuf,
}

/// The tensors of a checkpoint, mapped into memory.
///
/// Nothing is read until it is used, and tensors handed out share the mapping. The files must not be changed or cut
/// short while any of it is alive; replacing one by renaming another over it is safe.
pub struct Weights {
    folder: PathBuf,
    /// In the order of `Stored::file`.
    files: Vec<PathBuf>,
    mappings: Vec<Mapping>,
    tensors: BTreeMap<String, Stored>,
}

struct Stored {
    file: usize,
    entry: Entry,
}

impl Weights {
    /// Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` lists; where there is
    /// neither, `pytorch_model.bin` or its shards.
    ///
    /// # Errors
    /// [`Error::NoWeights`], [`Error::OtherFormat`] where there is only another format; [`Error::Safetensors`] and
    /// [`Error::Torch`] for a damaged or hostile file; [`Error::ShardOutside`], [`Error::ShardMissing`],
    /// [`Error::NotInShard`] and [`Error::Duplicate`] where index and shards do not fit.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let mut weights =
            Self { folder: folder.to_owned(), files: Vec::new(), mappings: Vec::new(), tensors: BTreeMap::new() };
        for (single, index) in FORMATS {
            let (single, index) = (folder.join(single), folder.join(index));
            if single.exists() {
                weights.add(single)?;
                return Ok(weights);
            }
            if index.exists() {
                weights.add_shards(&index)?;
                return Ok(weights);
            }
        }
        let other = OTHERS.iter().map(|name| folder.join(name)).find(|file| file.exists());
        let none = || Error::NoWeights { folder: folder.to_owned() };
        Err(other.map_or_else(none, |file| Error::OtherFormat { file }))
    }

    /// The layer of a `Dense` of sentence-transformers: `linear.weight`, `[outputs, inputs]`, `linear.bias`, `[outputs]`,
    /// and nothing else.
    ///
    /// # Errors
    /// [`Error::Misfit`] if the tensors are others.
    pub fn dense(&self, outputs: usize, inputs: usize, bias: bool) -> Result<LinearPart<HostTensor>> {
        Loader::alone(self, "Dense", |loader| LinearPart {
            weight: loader.tensor("linear.weight", &[outputs, inputs]),
            bias: bias.then(|| loader.tensor("linear.bias", &[outputs])),
        })
    }

    /// The gain and the shift of a `LayerNorm` of sentence-transformers: `norm.weight` and `norm.bias`, each `[columns]`,
    /// and nothing else.
    ///
    /// # Errors
    /// [`Error::Misfit`] if the tensors are others.
    pub fn layer_norm(&self, columns: usize) -> Result<[HostTensor; 2]> {
        Loader::alone(self, "LayerNorm", |loader| {
            ["norm.weight", "norm.bias"].map(|name| loader.tensor(name, &[columns]))
        })
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo> + '_ {
        self.tensors.iter().map(|(name, stored)| TensorInfo {
            name: name.clone(),
            dtype: stored.entry.dtype.to_string(),
            shape: stored.entry.shape.clone(),
            bytes: stored.entry.bytes.len(),
            file: self.files[stored.file].clone(),
        })
    }

    /// Gives back the memory that the files take up, until they are used again. A backend that has copied tensors into the order
    /// it wants would otherwise need that twice.
    pub(crate) fn forget(&self) {
        self.mappings.iter().for_each(Mapping::forget);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name).map(|stored| &stored.entry)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = self.files.len();
        let (mapping, entries) = file::open(&path)?;
        self.mappings.push(mapping);
        for (name, entry) in entries {
            if let Some(first) = self.tensors.get(&name) {
                let first = self.files[first.file].clone();
                return Err(Error::Duplicate { name, first, second: path });
            }
            self.tensors.insert(name, Stored { file, entry });
        }
        self.files.push(path);
        Ok(())
    }

    fn add_shards(&mut self, index: &Path) -> Result<()> {
        let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, shard) in weight_map(index)? {
            shards.entry(shard).or_default().insert(name);
        }
        for (shard, names) in shards {
            let plain = Path::new(&shard).components().all(|c| matches!(c, Component::Normal(_)));
            if shard.is_empty() || !plain {
                return Err(Error::ShardOutside { index: index.to_owned(), shard });
            }
            let path = self.folder.join(&shard);
            if !path.exists() {
                return Err(Error::ShardMissing { index: index.to_owned(), shard });
            }
            self.add(path.clone())?;
            let mut absent: Vec<String> = names.into_iter().filter(|name| !self.holds(&path, name)).collect();
            if !absent.is_empty() {
                return Err(Error::NotInShard { shard: path, count: absent.len(), name: absent.swap_remove(0) });
            }
        }
        Ok(())
    }

    fn holds(&self, file: &Path, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|stored| self.files[stored.file] == file)
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The `weight_map` of an index: the shard of each tensor.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(index).map_err(|source| Error::Read { file: index.to_owned(), source })?;
    let json = |source| Error::Json { file: index.to_owned(), source };
    let mut content: Map<String, Value> = serde_json::from_str(&text).map_err(json)?;
    serde_json::from_value(content.remove("weight_map").unwrap_or_default()).map_err(json)
}

/// A tensor as backends take it; `None` for an element type that weights are not kept in.
fn host_tensor(entry: &Entry) -> Option<HostTensor> {
    let dtype = match entry.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        _ => return None,
    };
    HostTensor::new(dtype, entry.shape.clone(), entry.bytes.clone()).ok()
}
