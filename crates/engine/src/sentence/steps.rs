//! What sentence-transformers does to pooled rows: modules `Dense`, `LayerNorm` and `Normalize`, in any order, and a cut to
//! fewer columns. On the host, where the rows end anyway; a `Dense` of 768 x 768 is a thousandth of the encoder's work on a text
//! of 15 tokens.

use std::path::{Path, PathBuf};

use mlxt_models::Weights;
use serde::Deserialize;

use super::activation::Elementwise;
use super::dense::Dense;
use super::embeddings::normalize;
use crate::{Result, modules};

/// Sums of a product that run beside each other: what the compiler makes vectors of.
const LANES: usize = 16;

/// What is added to a variance, as `torch.nn.LayerNorm` has it unless told otherwise, which the module cannot be.
const EPSILON: f64 = 1e-5;

/// What happens to a row after pooling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// `activation(W x + b)`.
    Dense(Dense),
    /// To mean zero and variance one, then a gain and a shift for each column.
    LayerNorm(LayerNorm),
    /// To unit length.
    Normalize,
    /// To so many columns at most, the first ones.
    Truncate(usize),
}

/// What the `config.json` of a `LayerNorm` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNorm {
    /// Where its weights lie.
    pub folder: PathBuf,
    /// Columns before and after it.
    pub columns: usize,
}

/// As the file has it.
#[derive(Deserialize)]
struct LayerNormConfig {
    dimension: usize,
}

impl LayerNorm {
    /// Reads the settings in `folder`.
    ///
    /// # Errors
    /// [`crate::Error::MissingFile`], [`crate::Error::Json`], [`crate::Error::Io`].
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let LayerNormConfig { dimension } = modules::config(folder)?;
        Ok(Self { folder: folder.into(), columns: dimension })
    }
}

/// A step with its weights.
pub(super) enum Loaded {
    Dense { weight: Vec<f32>, bias: Vec<f32>, activation: Elementwise },
    LayerNorm { gain: Vec<f32>, shift: Vec<f32> },
    Normalize,
    Truncate(usize),
}

impl Loaded {
    /// Reads a step's weights, if it has any.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if they are missing, damaged or not what the settings say.
    pub(super) fn load(step: &Step) -> Result<Self> {
        Ok(match step {
            Step::Dense(dense) => {
                let linear = Weights::open(&dense.folder)?.dense(dense.outputs, dense.inputs, dense.bias)?;
                let bias = linear.bias.map_or_else(|| vec![0.0; dense.outputs], |bias| bias.to_f32());
                Self::Dense { weight: linear.weight.to_f32(), bias, activation: dense.activation }
            }
            Step::LayerNorm(norm) => {
                let [gain, shift] = Weights::open(&norm.folder)?.layer_norm(norm.columns)?.map(|part| part.to_f32());
                Self::LayerNorm { gain, shift }
            }
            Step::Normalize => Self::Normalize,
            Step::Truncate(columns) => Self::Truncate(*columns),
        })
    }

    /// What it makes of one row.
    pub(super) fn apply(&self, mut row: Vec<f32>) -> Vec<f32> {
        match self {
            Self::Dense { weight, bias, activation } => {
                let outputs = weight.chunks_exact(row.len().max(1)).zip(bias);
                return outputs.map(|(weights, bias)| activation.apply(dot(weights, &row) + bias)).collect();
            }
            Self::LayerNorm { gain, shift } => layer_norm(&mut row, gain, shift),
            Self::Normalize => normalize(&mut row),
            Self::Truncate(columns) => row.truncate(*columns),
        }
        row
    }
}

/// `gain (x − mean) / √(variance + ε) + shift`, with the variance of all values, not of a sample.
fn layer_norm(row: &mut [f32], gain: &[f32], shift: &[f32]) {
    let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / row.len() as f64;
    let mean = mean_of(&mut row.iter().map(|&x| f64::from(x)));
    let variance = mean_of(&mut row.iter().map(|&x| (f64::from(x) - mean).powi(2)));
    let scale = (variance + EPSILON).sqrt().recip();
    for ((x, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
        *x = ((f64::from(*x) - mean) * scale) as f32 * gain + shift;
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
}
