//! A model's requests to a checkpoint, recorded, so that everything that does not fit is reported once and together.
//!
//! A request never fails: where a tensor is missing or misshapen it gives an empty one and the fault is noted.
//! [`Misfit::check`] must pass before anything is loaded onto a backend.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use mlxt_backend::{DType, HostTensor, LinearPart, LinearWeight, NormKind, NormSource, Quantised, Scales, Scheme};
use safetensors::Dtype;

use super::file::Entry;
use super::{Weights, host_tensor};
use crate::{Config, Error, Quantisation, Result};

/// Names of a base model without prefix start with one of these; anything else is a task's head.
const ROOTS: [&str; 8] =
    ["embeddings", "embeddings_project", "emb_ln", "encoder", "transformer", "layers", "final_norm", "pooler"];

/// Constants that old checkpoints saved among the weights, and a table and a norm that DeBERTa's have from their training
/// and do not use. (Where one is used, it is requested.)
const BUFFERS: [&str; 5] = [
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "embeddings.position_embeddings.weight",
    "encoder.LayerNorm.weight",
    "encoder.LayerNorm.bias",
];

/// Names that TensorFlow checkpoints left in converted ones, after the names they now have.
const OLD_NAMES: [(&str, &str); 2] = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

/// The element types of weights that are not packed.
const FLOATS: &str = "F32, F16 or BF16";

/// Faults of one kind that a message lists; the rest is a number, and `mlxt inspect` lists all.
const LISTED: usize = 5;

/// Weights that are not those of the model that `config.json` describes. Every list is sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The model's folder.
    pub folder: PathBuf,
    /// `model_type`.
    pub model_type: &'static str,
    /// Tensors the model needs and the checkpoint lacks, with the shape they should have.
    pub missing: Vec<NamedShape>,
    /// Tensors of another shape than the model's.
    pub misshapen: Vec<Misshapen>,
    /// Tensors whose element type is not one that they can have.
    pub untyped: Vec<Untyped>,
    /// Tensors of the base model that `config.json` has no place for.
    pub unexpected: Vec<NamedShape>,
}

/// A tensor's name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedShape {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// A tensor of the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Name.
    pub name: String,
    /// The shape `config.json` asks for.
    pub expected: Vec<usize>,
    /// The shape in the checkpoint.
    pub found: Vec<usize>,
}

/// A tensor of an element type that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untyped {
    /// Name.
    pub name: String,
    /// The element types it can have.
    pub expected: &'static str,
    /// Its element type.
    pub found: String,
}

/// What a tensor of a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of the base model's weights.
    Base,
    /// Outside the base model's namespace: a task's head.
    Head,
    /// A constant that old checkpoints saved, which nothing reads.
    Buffer,
    /// In the base model's namespace, but not what `config.json` describes.
    Misfit,
}

impl Misfit {
    /// Whether there is none: the model can be loaded.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.misshapen.is_empty() && self.untyped.is_empty() && self.unexpected.is_empty()
    }

    /// # Errors
    /// [`Error::Misfit`] if there is any.
    pub(crate) fn check(self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(Error::Misfit(Box::new(self))) }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the weights in {} are not the {} that config.json describes",
            self.folder.display(),
            self.model_type
        )?;
        let mut before = ": ";
        let mut list = |kind: &str, items: Vec<String>| -> fmt::Result {
            if items.is_empty() {
                return Ok(());
            }
            write!(f, "{before}{} {kind} ({}", items.len(), items[..items.len().min(LISTED)].join(", "))?;
            before = "; ";
            match items.len().saturating_sub(LISTED) {
                0 => f.write_str(")"),
                more => write!(f, " and {more} more)"),
            }
        };
        // Escaped: a name is whatever the file says, and may hold line breaks or terminal codes.
        let named = |t: &NamedShape| format!("{} {:?}", t.name.escape_debug(), t.shape);
        let misshapen =
            |t: &Misshapen| format!("{} must be {:?}, found {:?}", t.name.escape_debug(), t.expected, t.found);
        list("missing", self.missing.iter().map(named).collect())?;
        list("misshapen", self.misshapen.iter().map(misshapen).collect())?;
        let untyped = |t: &Untyped| format!("{} must be {}, found {}", t.name.escape_debug(), t.expected, t.found);
        list("of the wrong type", self.untyped.iter().map(untyped).collect())?;
        list("unexpected", self.unexpected.iter().map(named).collect())
    }
}

/// Hands tensors to a model under construction.
#[derive(Debug)]
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    /// How those of them are packed that are.
    quantisation: Option<&'a Quantisation>,
    /// `bert.` or nothing.
    prefix: String,
    /// What the tensors asked for are: `Base`, or `Head` within [`Loader::outside`].
    role: Role,
    /// Stored names of the tensors asked for and found, and what they are: `Misfit` if they do not fit.
    requested: BTreeMap<String, Role>,
    /// What a request gives whose tensor is not there.
    empty: HostTensor,
    misfit: Misfit,
}

impl<'a> Loader<'a> {
    /// For the model of `config`.
    ///
    /// # Errors
    /// None that can happen: an empty tensor is always valid.
    pub(crate) fn new(weights: &'a Weights, config: &'a Config) -> Result<Self> {
        let anchor = format!("{}.weight", config.architecture.names.words);
        let prefixes: Vec<String> = config.architecture.prefixes.iter().map(|prefix| format!("{prefix}.")).collect();
        let anchored = prefixes.iter().find(|prefix| weights.has(&format!("{prefix}{anchor}")));
        let begun = || prefixes.iter().find(|prefix| weights.names().any(|name| name.starts_with(*prefix)));
        let prefix = anchored.or_else(|| if weights.has(&anchor) { None } else { begun() });
        let loader = Self::named(weights, prefix.cloned().unwrap_or_default(), config.model_type())?;
        Ok(Self { quantisation: config.quantisation(), ..loader })
    }

    /// For a model whose names have `prefix`.
    fn named(weights: &'a Weights, prefix: String, model_type: &'static str) -> Result<Self> {
        let misfit = Misfit {
            folder: weights.folder.clone(),
            model_type,
            missing: Vec::new(),
            misshapen: Vec::new(),
            untyped: Vec::new(),
            unexpected: Vec::new(),
        };
        let empty = HostTensor::new(DType::F32, vec![0], Bytes::new())?;
        Ok(Self { weights, quantisation: None, prefix, role: Role::Base, requested: BTreeMap::new(), empty, misfit })
    }

    /// What `request` asks for, if that is all `weights` hold: a module of sentence-transformers, called `kind` in errors.
    ///
    /// # Errors
    /// [`Error::Misfit`] if they are something else.
    pub(super) fn alone<R>(
        weights: &'a Weights,
        kind: &'static str,
        request: impl FnOnce(&mut Self) -> R,
    ) -> Result<R> {
        let mut loader = Self::named(weights, String::new(), kind)?;
        let parts = request(&mut loader);
        let (roles, mut misfit) = loader.finish();
        let others = weights.tensors.iter().filter(|(name, _)| roles.get(*name) == Some(&Role::Head));
        misfit
            .unexpected
            .extend(others.map(|(name, stored)| NamedShape { name: name.clone(), shape: stored.entry.shape.clone() }));
        misfit.check()?;
        Ok(parts)
    }

    /// Makes requests outside the base model's names: for a task's head.
    pub(crate) fn outside<R>(&mut self, request: impl FnOnce(&mut Self) -> R) -> R {
        let prefix = std::mem::take(&mut self.prefix);
        self.role = Role::Head;
        let result = request(self);
        self.role = Role::Base;
        self.prefix = prefix;
        result
    }

    /// Whether the checkpoint has a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.get(&self.stored_name(name)).is_some()
    }

    /// Whether the checkpoint has any tensor of a linear layer.
    pub(crate) fn has_part_of(&self, name: &str) -> bool {
        ["weight", "bias"].iter().any(|part| self.has(&format!("{name}.{part}")))
    }

    /// A tensor of exactly that shape.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> HostTensor {
        let name = self.stored_name(name);
        let tensor = self.read(&name, shape, (FLOATS, host_tensor));
        tensor.map_or_else(|| self.empty.clone(), |tensor| tensor.named(&name))
    }

    /// The weights of a linear layer or a table, `name.weight`: `[outputs, inputs]`, packed if they are in the checkpoint.
    pub(crate) fn weight(&mut self, name: &str, outputs: usize, inputs: usize) -> LinearWeight {
        let module = format!("{}{name}", self.prefix);
        let packed = self.weights.get(&format!("{module}.weight")).is_some_and(|entry| entry.dtype == Dtype::U32);
        match self.quantisation.and_then(|all| all.scheme_of(&module)).filter(|_| packed) {
            Some(scheme) => self
                .quantised(&module, scheme, [outputs, inputs])
                .map_or_else(|| self.empty.clone().into(), LinearWeight::Quantised),
            None => self.tensor(&format!("{name}.weight"), &[outputs, inputs]).into(),
        }
    }

    /// Packed weights: `module.weight`, `module.scales` and, where the scheme has them, `module.biases`.
    fn quantised(&mut self, module: &str, scheme: Scheme, shape: [usize; 2]) -> Option<Quantised> {
        let [outputs, inputs] = shape;
        let name = |part: &str| format!("{module}.{part}");
        if !inputs.is_multiple_of(scheme.group()) {
            // What `config.json` describes cannot be packed.
            return self.read(&name("weight"), &shape, (FLOATS, |_: &Entry| None));
        }
        let groups = [outputs, inputs / scheme.group()];
        let codes = [outputs, inputs * scheme.bits() / u32::BITS as usize];
        let codes = self.read(&name("weight"), &codes, ("U32", bytes_of(Dtype::U32)));
        let scales = if let Scheme::Affine { .. } = scheme {
            let scales = self.read(&name("scales"), &groups, (FLOATS, host_tensor));
            let biases = self.read(&name("biases"), &groups, (FLOATS, host_tensor));
            scales.zip(biases).map(|(scales, biases)| Scales::Affine { scales, biases })
        } else {
            self.read(&name("scales"), &groups, ("U8", bytes_of(Dtype::U8))).map(Scales::Bytes)
        };
        let quantised = Quantised::new(scheme, shape, codes?, scales?).ok()?;
        Some(quantised.named(&name("weight")))
    }

    /// What `read` makes of the tensor that the checkpoint has under `name`, which must have `shape`.
    fn read<T>(
        &mut self,
        name: &str,
        shape: &[usize],
        (expected, read): (&'static str, impl FnOnce(&Entry) -> Option<T>),
    ) -> Option<T> {
        let Some(entry) = self.weights.get(name) else {
            self.misfit.missing.push(NamedShape { name: name.to_owned(), shape: shape.to_vec() });
            return None;
        };
        let fitting = (entry.shape == shape).then(|| read(entry)).flatten();
        let name = name.to_owned();
        self.requested.insert(name.clone(), if fitting.is_some() { self.role } else { Role::Misfit });
        if entry.shape != shape {
            self.misfit.misshapen.push(Misshapen { name, expected: shape.to_vec(), found: entry.shape.clone() });
        } else if fitting.is_none() {
            self.misfit.untyped.push(Untyped { name, expected, found: entry.dtype.to_string() });
        }
        fitting
    }

    /// A linear layer: `name.weight`, `[outputs, inputs]`, and where there is a bias `name.bias`, `[outputs]`.
    pub(crate) fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> LinearPart {
        LinearPart {
            weight: self.weight(name, outputs, inputs),
            bias: bias.then(|| self.tensor(&format!("{name}.bias"), &[outputs])),
        }
    }

    /// A layer norm: `name.weight` and, unless the config's norms have none, `name.bias`, `[cols]`.
    pub(crate) fn layer_norm(&mut self, name: &str, cols: usize, config: &Config) -> NormSource {
        NormSource {
            kind: NormKind::LayerNorm,
            gain: self.tensor(&format!("{name}.weight"), &[cols]),
            shift: config.biases.norm.then(|| self.tensor(&format!("{name}.bias"), &[cols])),
            eps: config.eps,
        }
    }

    /// What became of every tensor of the checkpoint, and everything that does not fit.
    pub(crate) fn finish(mut self) -> (BTreeMap<String, Role>, Misfit) {
        let mut roles = BTreeMap::new();
        for (name, stored) in &self.weights.tensors {
            let role = self.requested.get(name).copied().unwrap_or_else(|| {
                let role = self.role_unrequested(name);
                if role == Role::Misfit {
                    self.misfit.unexpected.push(NamedShape { name: name.clone(), shape: stored.entry.shape.clone() });
                }
                role
            });
            roles.insert(name.clone(), role);
        }
        self.misfit.missing.sort_by(|a, b| a.name.cmp(&b.name));
        self.misfit.misshapen.sort_by(|a, b| a.name.cmp(&b.name));
        self.misfit.untyped.sort_by(|a, b| a.name.cmp(&b.name));
        (roles, self.misfit)
    }

    fn role_unrequested(&self, stored: &str) -> Role {
        let Some(name) = stored.strip_prefix(&self.prefix) else { return Role::Head };
        let root = name.split('.').next().unwrap_or(name);
        if BUFFERS.contains(&name) {
            Role::Buffer
        } else if self.prefix.is_empty() && !ROOTS.contains(&root) {
            Role::Head
        } else {
            Role::Misfit
        }
    }

    /// The name under which the checkpoint has a tensor, or should have it.
    fn stored_name(&self, name: &str) -> String {
        let stored = format!("{}{name}", self.prefix);
        if self.weights.get(&stored).is_some() {
            return stored;
        }
        let old = OLD_NAMES.iter().find_map(|(new, old)| stored.strip_suffix(new).map(|start| format!("{start}{old}")));
        old.filter(|old| self.weights.get(old).is_some()).unwrap_or(stored)
    }
}

/// Reads a tensor that must be of `dtype` as its bytes.
fn bytes_of(dtype: Dtype) -> impl FnOnce(&Entry) -> Option<Bytes> {
    move |entry| (entry.dtype == dtype).then(|| entry.bytes.clone())
}
