//! What the `config.json` of a `Dense` says: its size and its activation. Its weights are read in `steps.rs`.

use std::path::{Path, PathBuf};

use mlxt_backend::Activation;
use serde::Deserialize;

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
    pub activation: Activation,
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
    /// not torch's, and for a module that works on something else than the embedding.
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
        let Some(activation) = activation(&config.activation_function) else {
            let supported = "torch.nn's Identity, Tanh, ReLU, ReLU6, LeakyReLU, GELU, SiLU, Sigmoid, Mish, Hardswish";
            return unsupported("activation_function", config.activation_function, supported);
        };
        let (inputs, outputs, bias) = (config.in_features, config.out_features, config.bias);
        Ok(Self { folder: folder.into(), inputs, outputs, bias, activation })
    }
}

/// The activation of a class of torch, with that class's defaults.
fn activation(class: &str) -> Option<Activation> {
    Some(match class.strip_prefix("torch.nn.")?.rsplit('.').next()? {
        "Identity" => Activation::Identity,
        "Tanh" => Activation::Tanh,
        "ReLU" => Activation::Relu,
        "ReLU6" => Activation::Relu6,
        "LeakyReLU" => Activation::LeakyRelu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        "Sigmoid" => Activation::Sigmoid,
        "Mish" => Activation::Mish,
        "Hardswish" => Activation::HardSwish,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_classes_of_torch() {
        assert_eq!(activation("torch.nn.modules.linear.Identity"), Some(Activation::Identity));
        assert_eq!(activation("torch.nn.modules.activation.Hardswish"), Some(Activation::HardSwish));
        for unknown in ["Tanh", "my.module.Tanh", "torch.nn.modules.activation.PReLU", ""] {
            assert_eq!(activation(unknown), None, "{unknown}");
        }
    }
}
