//! What sentence-transformers does to pooled rows: modules `Dense` and `Normalize`, in any order. On the host, where the
//! rows end anyway; a `Dense` of 768 x 768 is a thousandth of the encoder's work on a text of 15 tokens.

use std::path::{Path, PathBuf};

use mlxt_backend::{Activation, reference};
use mlxt_models::Weights;
use serde::Deserialize;

use super::embeddings::normalize;
use crate::json::read_optional;
use crate::{Error, Result};

/// Sums of a product that run beside each other: what the compiler makes vectors of.
const LANES: usize = 16;

/// A module after pooling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// `activation(W x + b)`.
    Dense(Dense),
    /// To unit length.
    Normalize,
}

/// What the `config.json` of a `Dense` says.
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
        let path = folder.join("config.json");
        let config: DenseConfig = read_optional(&path)?.ok_or_else(|| Error::MissingFile {
            folder: folder.into(),
            file: "config.json",
            advice: "modules.json names this folder; download it too",
        })?;
        let unsupported = |setting, found: String, supported| {
            Err(Error::UnsupportedSetting { path: path.clone(), setting, found, supported })
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

/// A step with its weights.
pub(super) enum Loaded {
    Dense { weight: Vec<f32>, bias: Vec<f32>, activation: Activation },
    Normalize,
}

impl Loaded {
    /// Reads a step's weights, if it has any.
    ///
    /// # Errors
    /// [`Error::Model`] if they are missing, damaged or not what the settings say.
    pub(super) fn load(step: &Step) -> Result<Self> {
        let Step::Dense(dense) = step else { return Ok(Self::Normalize) };
        let linear = Weights::open(&dense.folder)?.dense(dense.outputs, dense.inputs, dense.bias)?;
        let bias = linear.bias.map_or_else(|| vec![0.0; dense.outputs], |bias| bias.to_f32());
        Ok(Self::Dense { weight: linear.weight.to_f32(), bias, activation: dense.activation })
    }

    /// What it makes of one row.
    pub(super) fn apply(&self, mut row: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Dense { weight, bias, activation } => {
                let outputs = weight.chunks_exact(row.len().max(1)).zip(bias);
                let activate = |x: f32| reference::activate(*activation, f64::from(x)) as f32;
                outputs.map(|(weights, bias)| activate(dot(weights, &row) + bias)).collect()
            }
            Self::Normalize => {
                normalize(&mut row);
                row
            }
        }
    }
}

/// The sum of products of two rows of one length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_takes_every_column() {
        for length in [0, 1, 15, 16, 17, 50] {
            let row: Vec<f32> = (1..=length).map(|i| i as f32).collect();
            let expected: f32 = row.iter().map(|x| x * x).sum();
            assert_eq!(dot(&row, &row), expected, "{length}");
        }
    }

    #[test]
    fn activations_are_classes_of_torch() {
        assert_eq!(activation("torch.nn.modules.linear.Identity"), Some(Activation::Identity));
        assert_eq!(activation("torch.nn.modules.activation.Hardswish"), Some(Activation::HardSwish));
        for unknown in ["Tanh", "my.module.Tanh", "torch.nn.modules.activation.PReLU", ""] {
            assert_eq!(activation(unknown), None, "{unknown}");
        }
    }
}
