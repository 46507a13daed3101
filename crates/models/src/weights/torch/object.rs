//! What pickles are made of, and what is asked of a finished one.
//!
//! Objects are numbers into flat lists, so that no pickle, however nested or circular, costs recursion.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::TorchError;
use super::pickle::Machine;

/// A storage as a pickle describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    pub(super) key: &'a str,
    pub(super) elements: usize,
}

/// A tensor as a pickle describes it; nothing of it is checked against the storage yet.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    /// In elements, as the strides.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The functions and classes that a pickle may name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// Floats and numbers of more than 64 bits, which nothing reads.
    Other,
    /// A place in `Machine::lists`.
    List(usize),
    /// A range of `Machine::items`.
    Tuple(usize, usize),
    /// A place in `Machine::dicts`.
    Dict(usize),
    Global(Global),
    Storage(Storage<'a>),
    /// A place in `Machine::tensors`.
    Tensor(usize),
}

impl Value<'_> {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::Other => "a float or large number",
            Self::List(_) => "a list",
            Self::Tuple(..) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a function or class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// What a pickle made.
pub(super) struct Pickle<'a> {
    machine: Machine<'a>,
    top: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle that `bytes` begin with.
    pub(super) fn run(bytes: &'a [u8]) -> Result<Self, TorchError> {
        let mut machine = Machine::new(bytes);
        let top = machine.run()?;
        Ok(Self { machine, top })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> usize {
        self.machine.at()
    }

    /// Itself, if it is a number.
    pub(super) fn number(&self) -> Option<i64> {
        if let Value::Int(number) = self.top { Some(number) } else { None }
    }

    /// The truth value of that name, if it is a dict that has it.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let found = self.entries()?.iter().rev().find(|(key, _)| *key == name);
        found.and_then(|(_, value)| if let Value::Bool(flag) = value { Some(*flag) } else { None })
    }

    /// Itself, if it is a list of texts.
    pub(super) fn texts(&self) -> Option<Vec<&'a str>> {
        let Value::List(list) = self.top else { return None };
        self.machine.list(list).iter().map(|&value| text(value)).collect()
    }

    /// The tensors of the dict that it is.
    pub(super) fn state_dict(&self) -> Result<BTreeMap<&'a str, Tensor<'a>>, TorchError> {
        let tensor = |value| if let Value::Tensor(tensor) = value { Some(self.machine.tensor(tensor)) } else { None };
        let entries = self.entries().unwrap_or_default().iter();
        let tensors: BTreeMap<_, _> =
            entries.filter_map(|&(name, value)| Some((name, tensor(value)?.clone()))).collect();
        if tensors.is_empty() { Err(TorchError::NoTensors) } else { Ok(tensors) }
    }

    /// The element type of every storage that it names.
    pub(super) fn storages(&self) -> BTreeMap<&'a str, Dtype> {
        self.machine.storages().iter().map(|storage| (storage.key, storage.dtype)).collect()
    }

    fn entries(&self) -> Option<&[(&'a str, Value<'a>)]> {
        if let Value::Dict(dict) = self.top { Some(self.machine.dict(dict)) } else { None }
    }
}

pub(super) fn text(value: Value<'_>) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}
