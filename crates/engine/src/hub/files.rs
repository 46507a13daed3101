//! Which files of a model are needed, whether they lie in a cache or on a hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::is_plain;
use crate::modules::{self, MODULES, Module};
use crate::pipeline::ADAPTER;
use crate::sentence::SENTENCE_CONFIGS;

/// The settings of a transformer, and of most modules.
const CONFIG: &str = "config.json";

/// The weights, in one file.
const WEIGHTS: &str = "model.safetensors";

/// Weights in one file and the list of several, by format, in the order of preference.
const FORMATS: [(&str, &str); 2] =
    [(WEIGHTS, "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// The whole tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// What stands in for it in older models; taken where it is missing.
const VOCABULARIES: [&str; 5] = ["vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spm.model"];

/// Taken where a model has them, from its own folder.
const OWN: [&str; 2] = [MODULES, "config_sentence_transformers.json"];

/// Taken where a model has them, from its transformer's folder.
const BESIDE: [&str; 6] = [
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    SENTENCE_CONFIGS[0],
    ADAPTER, // which is refused
];

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of one model, by their names within it.
pub(super) struct Files<H> {
    /// What stands before the names of the transformer's files: nothing, or its folder and a slash.
    prefix: String,
    modules: Vec<Module>,
    has: H,
}

impl<H: Fn(&str) -> bool> Files<H> {
    /// Of the model whose list of modules, if it is one of sentence-transformers, is in `snapshot`; `has` tells which files
    /// there are.
    pub(super) fn new(snapshot: &Path, has: H) -> Self {
        let place = modules::transformer(snapshot);
        let folder = place.to_str().filter(|name| is_plain(name));
        let prefix = folder.map_or_else(String::new, |name| format!("{name}/"));
        // A list that cannot be read: loading it tells.
        let modules = modules::read(snapshot).ok().flatten().unwrap_or_default();
        Self { prefix, modules, has }
    }

    /// The settings, which every model needs.
    pub(super) fn config(&self) -> String {
        self.of_transformer(CONFIG)
    }

    /// The class of a first module that is no transformer, which has no settings of that name.
    pub(super) fn other_than_transformer(&self) -> Option<&str> {
        let first = self.modules.first().filter(|module| module.kind() != Some("Transformer"))?;
        Some(&first.r#type)
    }

    /// The weights in one file, or the list of the files that hold them: the first that there is.
    pub(super) fn weights(&self) -> (String, String) {
        let [first, second] = FORMATS.map(|(one, index)| (self.of_transformer(one), self.of_transformer(index)));
        let there = |(one, index): &(String, String)| (self.has)(one) || (self.has)(index);
        if there(&second) && !there(&first) { second } else { first }
    }

    /// The weight files that the list `index` names, each once; `None` if it is unreadable or names something outside
    /// the folder.
    pub(super) fn shards(&self, index: &Path) -> Option<BTreeSet<String>> {
        let index: Index = serde_json::from_slice(&std::fs::read(index).ok()?).ok()?;
        let names: BTreeSet<String> = index.weight_map.into_values().collect();
        let plain = names.iter().all(|name| is_plain(name));
        plain.then(|| names.iter().map(|name| self.of_transformer(name)).collect())
    }

    /// What is taken where there is such a file.
    pub(super) fn optional(&self) -> Vec<String> {
        let mut names: Vec<String> = OWN.map(str::to_owned).into();
        let mut take = |files: &[&str]| names.extend(files.iter().map(|name| self.of_transformer(name)));
        take(&BESIDE);
        if !(self.has)(&self.of_transformer(TOKENIZER)) {
            take(&VOCABULARIES);
        }
        if !self.modules.is_empty() && !(self.has)(&self.of_transformer(SENTENCE_CONFIGS[0])) {
            take(&SENTENCE_CONFIGS[1..]);
        }
        names.extend(self.modules.iter().filter(|module| is_plain(&module.path)).flat_map(of_module));
        names
    }

    /// Whether a file lies beside the transformer's.
    pub(super) fn is_beside(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|name| !name.contains('/'))
    }

    fn of_transformer(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The files of a module after the transformer.
fn of_module(module: &Module) -> Vec<String> {
    let names: &[&str] = match module.kind() {
        Some("Pooling") => &[CONFIG],
        // The third where the second is missing; that is noted in the cache, and both cost little.
        Some("Dense" | "LayerNorm") => &[CONFIG, WEIGHTS, "pytorch_model.bin"],
        _ => &[],
    };
    names.iter().map(|name| format!("{}/{name}", module.path)).collect()
}
