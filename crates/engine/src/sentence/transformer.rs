//! What a `Transformer` of sentence-transformers says beside `config.json` and the tokenizer: how long a text may be, its
//! case, and settings that would make it another module, which are refused.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::json::read_optional;
use crate::pipeline::FolderSettings;
use crate::{Error, Result};

/// The file's name, and those it had in old folders.
pub(crate) const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Arguments for loading that change no result, or only how exact it is, which is this program's own option.
const HARMLESS: [&str; 7] = [
    "trust_remote_code",
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "low_cpu_mem_usage",
    "use_safetensors",
    "add_pooling_layer",
];

/// How a model uses its transformer: what the settings of one that is used otherwise do not say.
pub(crate) struct Usual {
    task: &'static str,
    /// Which of the model's outputs ..
    from: &'static str,
    /// .. is called what.
    output: &'static str,
    modality: &'static str,
}

/// A row for each token of a text, as embeddings are made of.
pub(crate) const ROWS: Usual = Usual {
    task: "feature-extraction",
    from: "last_hidden_state",
    output: "token_embeddings",
    modality: "text, by forward, from last_hidden_state, and no message",
};

/// A classifier's logits for a pair of texts, as cross-encoders have them.
pub(crate) const SCORES: Usual = Usual {
    task: "sequence-classification",
    from: "logits",
    output: "scores",
    modality: "text, by forward, from logits, and no message",
};

/// As the file has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
    transformer_task: Option<String>,
    modality_config: Option<Map<String, Value>>,
    module_output_name: Option<String>,
    tokenizer_name_or_path: Option<String>,
    processing_kwargs: Map<String, Value>,
    #[serde(alias = "model_args")]
    model_kwargs: Map<String, Value>,
    #[serde(alias = "tokenizer_args")]
    processor_kwargs: Map<String, Value>,
    #[serde(alias = "config_args")]
    config_kwargs: Map<String, Value>,
}

impl TransformerConfig {
    /// From whichever of the file's names there is in `folder`, with its path.
    fn read(folder: &Path) -> Result<Option<(PathBuf, Self)>> {
        for name in SENTENCE_CONFIGS {
            let path = folder.join(name);
            if let Some(config) = read_optional(&path)? {
                return Ok(Some((path, config)));
            }
        }
        Ok(None)
    }

    /// A setting that makes it something else than `usual`: its name, its value and what is supported.
    fn foreign(&self, usual: &Usual) -> Option<(&'static str, String, &'static str)> {
        let texts = |(name, expected): (&'static str, &'static str), found: Option<&str>| {
            found.filter(|found| *found != expected).map(|found| (name, found.to_owned(), expected))
        };
        let kept = |name: &'static str, arguments: &Map<String, Value>, harmless: &[&str]| {
            let mut others = arguments.iter().filter(|(argument, _)| !harmless.contains(&argument.as_str()));
            others.next().map(|(argument, value)| (name, format!("{argument}: {value}"), "nothing there"))
        };
        texts(("transformer_task", usual.task), self.transformer_task.as_deref())
            .or_else(|| texts(("module_output_name", usual.output), self.module_output_name.as_deref()))
            .or_else(|| texts(("tokenizer_name_or_path", "null"), self.tokenizer_name_or_path.as_deref()))
            .or_else(|| self.foreign_modality(usual))
            .or_else(|| kept("processing_kwargs", &self.processing_kwargs, &[]))
            .or_else(|| kept("model_kwargs", &self.model_kwargs, &HARMLESS))
            .or_else(|| kept("processor_kwargs", &self.processor_kwargs, &HARMLESS))
            .or_else(|| kept("config_kwargs", &self.config_kwargs, &HARMLESS))
    }

    /// Texts must go the usual way, and not through a template of messages, which the library prefers where there is one.
    fn foreign_modality(&self, usual: &Usual) -> Option<(&'static str, String, &'static str)> {
        let modalities = self.modality_config.as_ref()?;
        let from = |output: &Value| *output == usual.from || *output == json!([usual.from]);
        let forward = |text: &Value| text["method"] == "forward" && from(&text["method_output_name"]);
        let fits = modalities.get("text").is_some_and(forward) && !modalities.contains_key("message");
        (!fits).then(|| ("modality_config", Value::from(modalities.clone()).to_string(), usual.modality))
    }
}

/// Length and case.
///
/// # Errors
/// Damaged or unreadable files.
pub(crate) fn transformer_settings(folder: &Path) -> Result<FolderSettings> {
    Ok(TransformerConfig::read(folder)?.map_or_else(FolderSettings::default, |(_, config)| FolderSettings {
        max_tokens: config.max_seq_length,
        lowercase: config.do_lower_case.unwrap_or(false),
    }))
}

/// That the module in `folder` is used as is `usual`, with the tokenizer and the settings beside it.
///
/// # Errors
/// [`Error::UnsupportedSetting`] if it is not; damaged or unreadable files.
pub(crate) fn check(folder: &Path, usual: &Usual) -> Result<()> {
    let Some((path, config)) = TransformerConfig::read(folder)? else { return Ok(()) };
    match config.foreign(usual) {
        None => Ok(()),
        Some((setting, found, supported)) => Err(Error::UnsupportedSetting { path, setting, found, supported }),
    }
}
