//! What the `config.json` of a `Dense` says: its size and its activation. Its weights are read in `steps.rs`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::activation::{Elementwise, SUPPORTED};
use crate::{Error, Result, modules};

/// `activation(W x + b)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Where its weights lie.
    pub folder: PathBuf,
    /// Columns before it.
    pub inputs: usize,
    /// Columns after it.
    pub outputs: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Its activation.
    pub activation: Elementwise,
}

/// As the file has it.
#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default = "tanh")]
    activation_function: String,
    #[serde(default = "sentence_embedding")]
    module_input_name: String,
    module_output_name: Option<String>,
}

fn yes() -> bool {
    true
}

fn tanh() -> String {
    "torch.nn.modules.activation.Tanh".into()
}

fn sentence_embedding() -> String {
    "sentence_embedding".into()
}

impl Dense {
    /// Reads the settings in `folder`.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Json`], [`Error::Io`]; [`Error::UnsupportedSetting`] for an activation that is
    /// not one of torch's for each value alone, and for a module that works on something else than the embedding.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let config: DenseConfig = modules::config(folder)?;
        let unsupported = |setting, found: String, supported| {
            Err(Error::UnsupportedSetting { path: folder.join("config.json"), setting, found, supported })
        };
        let output = config.module_output_name.unwrap_or_else(|| config.module_input_name.clone());
        for (setting, found) in [("module_input_name", config.module_input_name), ("module_output_name", output)] {
            if found != sentence_embedding() {
                return unsupported(setting, found, "sentence_embedding");
            }
        }
        let Some(activation) = Elementwise::of_class(&config.activation_function) else {
            return unsupported("activation_function", config.activation_function, SUPPORTED);
        };
        let (inputs, outputs, bias) = (config.in_features, config.out_features, config.bias);
        Ok(Self { folder: folder.into(), inputs, outputs, bias, activation })
    }
}
