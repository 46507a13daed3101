//! What a sentence-transformers folder says: its modules, how they pool, how long a text may be.
//!
//! ```text
//! modules.json                      the modules in order: Transformer, Pooling, then Dense, LayerNorm and Normalize in any order
//! sentence_bert_config.json         how long a text may be, and its case (`transformer.rs`); beside the Transformer's weights
//! 1_Pooling/config.json             how rows become one (`pooling.rs`)
//! 2_Dense/config.json               a linear layer after that (`dense.rs`); its weights lie beside it (`steps.rs`)
//! config_sentence_transformers.json prompts, and to how many columns embeddings are cut
//! ```
//!
//! Modules that are not here are refused by name: bags and tables of words (`BoW`, `WordEmbeddings`, `WordWeights`,
//! `StaticEmbedding`), what works on rows before they are pooled (`CNN`, `LSTM`, `WeightedLayerPooling`), what chooses
//! among modules (`Router`, once `Asym`), pictures (`CLIPModel`), and classes that are not the library's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlxt_models::Pooling;
use serde::Deserialize;

use super::dense::Dense;
use super::steps::{LayerNorm, Step};
use super::transformer::ROWS;
use super::{pooling, transformer};
use crate::json::read_optional;
use crate::modules::{self, MODULES};
use crate::pipeline::refuse_adapter;
use crate::{Error, Result};

/// What `modules.json` may list.
const SUPPORTED: &str = "sentence_transformers' Transformer, then Pooling, then Dense, LayerNorm and Normalize";

/// How a folder's sentence embeddings are made.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceConfig {
    /// How rows become one; at least one way, several stand side by side.
    pub poolings: Vec<Pooling>,
    /// What happens to the pooled row, in order.
    pub steps: Vec<Step>,
    /// Is put before every text.
    pub prompt: String,
    /// Whether its tokens are pooled with the text's.
    pub include_prompt: bool,
    /// Whether the folder says so itself, or the defaults for plain checkpoints were taken.
    pub from_folder: bool,
}

/// `config_sentence_transformers.json`.
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
        refuse_adapter(&folder.join(modules::transformer(folder)))?;
        let path = folder.join("config_sentence_transformers.json");
        let config: ModelConfig = read_optional(&path)?.unwrap_or_default();
        let truncated = truncation(config.truncate_dim, &path)?;
        let prompt = prompt(config, prompt_name, path)?;
        let plain =
            Self { poolings: vec![Pooling::Mean], steps: vec![], prompt, include_prompt: true, from_folder: false };
        let mut config = match modules::read(folder)? {
            None => Self { steps: vec![Step::Normalize], ..plain },
            Some(modules) => plain.with_modules(folder, &modules)?,
        };
        config.steps.extend(truncated);
        Ok(config)
    }

    /// With what the modules say.
    fn with_modules(mut self, folder: &Path, modules: &[modules::Module]) -> Result<Self> {
        let unsupported = |setting, found: &str, supported| {
            Err(Error::UnsupportedSetting { path: folder.join(MODULES), setting, found: found.to_owned(), supported })
        };
        for (place, module) in modules.iter().enumerate() {
            let Some(inside) = module.place() else {
                return unsupported("path", &module.path, "a folder inside the model's");
            };
            let own = folder.join(inside);
            match (place, module.kind().unwrap_or_default()) {
                (0, "Transformer") => transformer::check(&own, &ROWS)?,
                (1, "Pooling") => (self.poolings, self.include_prompt) = pooling::read(&own)?,
                (2.., "Dense") => self.steps.push(Step::Dense(Dense::read(&own)?)),
                (2.., "LayerNorm") => self.steps.push(Step::LayerNorm(LayerNorm::read(&own)?)),
                (2.., "Normalize") => self.steps.push(Step::Normalize),
                // Acts in training only.
                (2.., "Dropout") => {}
                _ => return unsupported("type", &module.r#type, SUPPORTED),
            }
        }
        if modules.len() < 2 {
            return unsupported("the list of modules", "without Pooling", SUPPORTED);
        }
        self.from_folder = true;
        Ok(self)
    }

    /// Whether embeddings get unit length.
    pub fn normalizes(&self) -> bool {
        self.steps.last() == Some(&Step::Normalize)
    }

    /// Makes embeddings end with unit length, or not; the same columns either way.
    pub(super) fn set_normalize(&mut self, normalize: bool) {
        let cut = self.steps.pop_if(|step| matches!(step, Step::Truncate(_)));
        while self.normalizes() {
            self.steps.pop();
        }
        self.steps.extend(cut);
        if normalize {
            self.steps.push(Step::Normalize);
        }
    }

    /// Columns of an embedding whose pooled row has `columns`.
    ///
    /// # Errors
    /// [`Error::UnsupportedSetting`] if a module takes another number than what comes before it gives.
    pub(super) fn width(&self, mut columns: usize) -> Result<usize> {
        for step in &self.steps {
            let (folder, setting, takes, gives) = match step {
                Step::Dense(dense) => (&dense.folder, "in_features", dense.inputs, dense.outputs),
                Step::LayerNorm(norm) => (&norm.folder, "dimension", norm.columns, norm.columns),
                Step::Truncate(most) => {
                    columns = columns.min(*most);
                    continue;
                }
                Step::Normalize => continue,
            };
            if takes != columns {
                let supported = "the columns that the module before it gives";
                let path = folder.join("config.json");
                return Err(Error::UnsupportedSetting { path, setting, found: takes.to_string(), supported });
            }
            columns = gives;
        }
        Ok(columns)
    }
}

/// The cut to fewer columns. It comes after all modules, and nothing is normalised again after it.
fn truncation(columns: Option<usize>, path: &Path) -> Result<Option<Step>> {
    if columns == Some(0) {
        let (setting, supported) = ("truncate_dim", "null, 1 or more");
        return Err(Error::UnsupportedSetting { path: path.into(), setting, found: "0".into(), supported });
    }
    Ok(columns.map(Step::Truncate))
}

/// The prompt that sentence-transformers puts before every text: the one asked for, else the default, else none.
fn prompt(config: ModelConfig, asked: Option<&str>, path: PathBuf) -> Result<String> {
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
