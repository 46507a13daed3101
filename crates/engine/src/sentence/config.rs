//! What a sentence-transformers folder says: its modules, how they pool, how long a text may be.
//!
//! ```text
//! modules.json                      the modules in order: Transformer, Pooling, then Dense and Normalize in any order
//! 1_Pooling/config.json             how rows become one
//! 2_Dense/config.json               a linear layer after that; its weights lie beside it (`steps.rs`)
//! sentence_bert_config.json         max_seq_length, do_lower_case
//! config_sentence_transformers.json prompts
//! ```

use std::collections::BTreeMap;
use std::path::{Component, Path};

use mlxt_models::Pooling;
use serde::Deserialize;

use super::steps::{Dense, Step};
use crate::json::read_optional;
use crate::pipeline::FolderSettings;
use crate::{Error, Result};

/// Names that `sentence_bert_config.json` had in old folders.
const SENTENCE_CONFIGS: [&str; 8] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
    "sentence_mpnet_config.json",
];

/// How a folder's sentence embeddings are made.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceConfig {
    /// How rows become one; at least one way, several stand side by side.
    pub poolings: Vec<Pooling>,
    /// What happens to the pooled row, in order.
    pub steps: Vec<Step>,
    /// Is put before every text.
    pub prompt: String,
    /// Whether the folder says so itself, or the defaults for plain checkpoints were taken.
    pub from_folder: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // the file's own
struct PoolingConfig {
    pooling_mode: Option<Modes>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
    include_prompt: bool,
}

impl Default for PoolingConfig {
    fn default() -> Self {
        Self {
            pooling_mode: None,
            pooling_mode_cls_token: false,
            pooling_mode_max_tokens: false,
            pooling_mode_mean_tokens: false,
            pooling_mode_mean_sqrt_len_tokens: false,
            pooling_mode_weightedmean_tokens: false,
            pooling_mode_lasttoken: false,
            include_prompt: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    prompts: Option<BTreeMap<String, String>>,
    default_prompt_name: Option<String>,
    truncate_dim: Option<usize>,
}

impl SentenceConfig {
    /// Reads `folder`; a folder without `modules.json` is a plain checkpoint: mean pooling, normalised. `prompt_name`
    /// is one of its prompts, to be used instead of the default.
    ///
    /// # Errors
    /// [`Error::NoSuchPrompt`];
    /// [`Error::UnsupportedSetting`] for modules and settings that would change the result and are not supported;
    /// damaged or unreadable files.
    pub(crate) fn read(folder: &Path, prompt_name: Option<&str>) -> Result<Self> {
        let prompt = prompt(folder, prompt_name)?;
        let path = folder.join("modules.json");
        let Some(modules) = read_optional::<Vec<Module>>(&path)? else {
            return Ok(Self {
                poolings: vec![Pooling::Mean],
                steps: vec![Step::Normalize],
                prompt,
                from_folder: false,
            });
        };
        let unsupported = |setting, found: &str, supported| {
            Err(Error::UnsupportedSetting { path: path.clone(), setting, found: found.to_owned(), supported })
        };
        let mut poolings = Vec::new();
        let mut steps = Vec::new();
        for (place, module) in modules.iter().enumerate() {
            if !Path::new(&module.path).components().all(|c| matches!(c, Component::Normal(_))) {
                return unsupported("path", &module.path, "a folder inside the model's");
            }
            match (place, module.r#type.rsplit('.').next().unwrap_or_default()) {
                (0, "Transformer") if module.path.is_empty() => {}
                (0, "Transformer") => {
                    return unsupported("path of the Transformer", &module.path, "the model's own folder");
                }
                (1, "Pooling") => poolings = read_pooling(&folder.join(&module.path), &prompt)?,
                (2.., "Dense") => steps.push(Step::Dense(Dense::read(&folder.join(&module.path))?)),
                (2.., "Normalize") => steps.push(Step::Normalize),
                // Acts in training only.
                (2.., "Dropout") => {}
                _ => return unsupported("type", &module.r#type, "Transformer, then Pooling, then Dense and Normalize"),
            }
        }
        if poolings.is_empty() {
            return unsupported(
                "the list of modules",
                "without Pooling",
                "Transformer, then Pooling, then Dense and Normalize",
            );
        }
        Ok(Self { poolings, steps, prompt, from_folder: true })
    }

    /// Whether embeddings get unit length.
    pub fn normalizes(&self) -> bool {
        self.steps.last() == Some(&Step::Normalize)
    }

    /// Makes embeddings end with unit length, or not.
    pub(super) fn set_normalize(&mut self, normalize: bool) {
        while self.normalizes() {
            self.steps.pop();
        }
        if normalize {
            self.steps.push(Step::Normalize);
        }
    }

    /// Columns of an embedding whose pooled row has `columns`.
    ///
    /// # Errors
    /// [`Error::UnsupportedSetting`] if a `Dense` takes another number than what comes before it gives.
    pub(super) fn width(&self, mut columns: usize) -> Result<usize> {
        for step in &self.steps {
            if let Step::Dense(dense) = step {
                if dense.inputs != columns {
                    return Err(Error::UnsupportedSetting {
                        path: dense.folder.join("config.json"),
                        setting: "in_features",
                        found: dense.inputs.to_string(),
                        supported: "the columns that the module before it gives",
                    });
                }
                columns = dense.outputs;
            }
        }
        Ok(columns)
    }
}

/// Length and case, from whichever of the file's names there is.
///
/// # Errors
/// Damaged or unreadable files.
pub(crate) fn transformer_settings(folder: &Path) -> Result<FolderSettings> {
    for name in SENTENCE_CONFIGS {
        if let Some(config) = read_optional::<TransformerConfig>(&folder.join(name))? {
            let lowercase = config.do_lower_case.unwrap_or(false);
            return Ok(FolderSettings { max_tokens: config.max_seq_length, lowercase });
        }
    }
    Ok(FolderSettings::default())
}

/// The prompt that sentence-transformers puts before every text: the one asked for, else the default, else none.
fn prompt(folder: &Path, asked: Option<&str>) -> Result<String> {
    let path = folder.join("config_sentence_transformers.json");
    let config: ModelConfig = read_optional(&path)?.unwrap_or_default();
    if let Some(dim) = config.truncate_dim {
        let (setting, supported) = ("truncate_dim", "null");
        return Err(Error::UnsupportedSetting { path, setting, found: dim.to_string(), supported });
    }
    // These two every model has; they are empty unless the file says otherwise.
    let mut prompts: BTreeMap<String, String> = ["query", "document"].map(|name| (name.into(), String::new())).into();
    prompts.extend(config.prompts.unwrap_or_default());
    match (asked, config.default_prompt_name) {
        (Some(name), _) => prompts.remove(name).ok_or_else(|| {
            let known = prompts.into_keys().collect();
            Error::NoSuchPrompt { asked: name.to_owned(), known }
        }),
        (None, Some(name)) => prompts.remove(&name).ok_or_else(|| {
            let (setting, supported) = ("default_prompt_name", "a name among the prompts");
            Error::UnsupportedSetting { path, setting, found: name, supported }
        }),
        (None, None) => Ok(String::new()),
    }
}

fn read_pooling(folder: &Path, prompt: &str) -> Result<Vec<Pooling>> {
    let path = folder.join("config.json");
    let Some(config) = read_optional::<PoolingConfig>(&path)? else {
        return Err(Error::MissingFile {
            folder: folder.into(),
            file: "config.json",
            advice: "modules.json names this folder; download it too",
        });
    };
    if !config.include_prompt && !prompt.is_empty() {
        let (setting, supported) = ("include_prompt", "true where a prompt is used");
        return Err(Error::UnsupportedSetting { path, setting, found: "false".into(), supported });
    }
    let names = match config.pooling_mode {
        Some(Modes::One(name)) => vec![name],
        Some(Modes::Several(names)) => names,
        None => return Ok(legacy_modes(&config)),
    };
    let unknown = |found: String| Error::UnsupportedSetting {
        path: path.clone(),
        setting: "pooling_mode",
        found,
        supported: "cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken",
    };
    if names.is_empty() {
        return Err(unknown("empty".into()));
    }
    names.into_iter().map(|name| mode(&name).ok_or_else(|| unknown(name))).collect()
}

fn mode(name: &str) -> Option<Pooling> {
    Some(match name {
        "cls" => Pooling::Cls,
        "max" => Pooling::Max,
        "mean" => Pooling::Mean,
        "mean_sqrt_len_tokens" => Pooling::MeanSqrtLength,
        "weightedmean" => Pooling::WeightedMean,
        "lasttoken" => Pooling::Last,
        _ => return None,
    })
}

/// Several at once stand in this order, whatever their order in the file; none means the mean.
fn legacy_modes(config: &PoolingConfig) -> Vec<Pooling> {
    let modes = [
        (config.pooling_mode_cls_token, Pooling::Cls),
        (config.pooling_mode_max_tokens, Pooling::Max),
        (config.pooling_mode_mean_tokens, Pooling::Mean),
        (config.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLength),
        (config.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
        (config.pooling_mode_lasttoken, Pooling::Last),
    ];
    let mut active: Vec<Pooling> = modes.into_iter().filter(|(on, _)| *on).map(|(_, pooling)| pooling).collect();
    if active.is_empty() {
        active.push(Pooling::Mean);
    }
    active
}
