//! Reading the fixtures' golden files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

/// Token ids and types of one text.
pub(crate) struct Sequence {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

impl Sequence {
    /// The first `tokens - 1` tokens and the last: how texts are cut to a length.
    pub(crate) fn truncated(&self, tokens: usize) -> Self {
        let cut = |all: &[u32]| [&all[..tokens - 1], &all[all.len() - 1..]].concat();
        Self { ids: cut(&self.ids), type_ids: cut(&self.type_ids) }
    }
}

/// One text and what came out.
pub(crate) struct Case {
    pub text: String,
    pub sequence: Sequence,
    pub embedding_tokens: usize,
    pub hidden: Vec<f32>,
    pub pooler: Option<Vec<f32>>,
    pub embedding: Vec<f32>,
}

/// The golden outputs of a fixture.
pub(crate) struct Golden {
    pub cases: Vec<Case>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let (description, tensors) = read(name);
        let tensors = SafeTensors::deserialize(&tensors).unwrap();
        let cases = description["cases"].as_array().unwrap();
        let case = |(i, case): (usize, &Value)| Case {
            text: case["text"].as_str().unwrap().to_owned(),
            sequence: Sequence { ids: integers(&case["ids"]), type_ids: integers(&case["type_ids"]) },
            embedding_tokens: case["embedding_tokens"].as_u64().unwrap() as usize,
            hidden: floats(&tensors, &format!("hidden.{i}")).unwrap(),
            pooler: floats(&tensors, &format!("pooler.{i}")),
            embedding: floats(&tensors, &format!("embedding.{i}")).unwrap(),
        };
        Self { cases: cases.iter().enumerate().map(case).collect() }
    }
}

/// The golden outputs of the fixture `activations`: one sequence through one layer.
pub(crate) struct OneLayer {
    pub(crate) ids: Vec<u32>,
    /// Names, and the hidden states under each.
    pub(crate) activations: Vec<(String, Vec<f32>)>,
    /// The hidden states under `gelu` pooled, by sentence-transformers' name of the pooling.
    pub(crate) pooled: BTreeMap<String, Vec<f32>>,
}

impl OneLayer {
    pub(crate) fn open() -> Self {
        let (description, tensors) = read("activations");
        let tensors = SafeTensors::deserialize(&tensors).unwrap();
        let names: Vec<String> = serde_json::from_value(description["activations"].clone()).unwrap();
        let hidden = |name: String| (name.clone(), floats(&tensors, &format!("hidden.{name}")).unwrap());
        let modes = tensors.names().into_iter().filter_map(|name| name.strip_prefix("pool."));
        Self {
            ids: integers(&description["ids"]),
            activations: names.into_iter().map(hidden).collect(),
            pooled: modes.map(|mode| (mode.to_owned(), floats(&tensors, &format!("pool.{mode}")).unwrap())).collect(),
        }
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// The largest difference of two values in the same place; infinite if there is none to compare or a NaN among them.
pub(crate) fn distance(found: &[f32], want: &[f32]) -> f32 {
    if found.len() != want.len() || found.is_empty() {
        return f32::INFINITY;
    }
    let differences = found.iter().zip(want).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, d| if d.is_nan() { f32::INFINITY } else { most.max(d) })
}

/// The same direction at length 1.
pub(crate) fn normalised(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    row.iter().map(|v| (f64::from(*v) / length) as f32).collect()
}

fn read(name: &str) -> (Value, Vec<u8>) {
    let folder = fixture(name);
    let description = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    (serde_json::from_str(&description).unwrap(), std::fs::read(folder.join("golden.safetensors")).unwrap())
}

fn integers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn floats(tensors: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let data = tensors.tensor(name).ok()?.data();
    Some(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}
