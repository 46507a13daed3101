//! Which files of a model are needed, whether they lie in a cache or on a hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::is_plain;

/// Needed by everything.
pub(super) const CONFIG: &str = "config.json";

/// The weights, in one file.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// The list of files that hold the weights, where they are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Weights in one file and the list of several, by format, in the order of preference.
pub(super) const FORMATS: [(&str, &str); 2] = [(WEIGHTS, INDEX), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

/// The whole tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// What stands in for it in older models; taken where it is missing.
pub(super) const VOCABULARIES: [&str; 5] =
    ["vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spm.model"];

/// The list of a sentence-transformers model's modules.
pub(super) const MODULES: &str = "modules.json";

/// Taken where a model has them.
pub(super) const OPTIONAL: [&str; 7] = [
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    MODULES,
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

/// The weight files an index names, each once; `None` if it is unreadable or names something outside the folder.
pub(super) fn shards(index: &Path) -> Option<BTreeSet<String>> {
    let index: Index = serde_json::from_slice(&std::fs::read(index).ok()?).ok()?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    names.iter().all(|name| is_plain(name)).then_some(names)
}

/// The files of a sentence-transformers model's own modules. None if the list is unreadable, which loading it tells.
pub(super) fn module_files(modules: &Path) -> Vec<String> {
    let read = || serde_json::from_slice::<Vec<Module>>(&std::fs::read(modules).ok()?).ok();
    let own = |m: &Module| is_plain(&m.path);
    let files = |m: Module| {
        let kind = m.r#type.rsplit('.').next().unwrap_or_default();
        let names: &[&str] = match kind {
            "Pooling" => &[CONFIG],
            // The second where the first is missing; that is noted in the cache, and both cost little.
            "Dense" => &[CONFIG, WEIGHTS, "pytorch_model.bin"],
            _ => &[],
        };
        names.iter().map(move |name| format!("{}/{name}", m.path)).collect::<Vec<_>>()
    };
    read().unwrap_or_default().into_iter().filter(own).flat_map(files).collect()
}
