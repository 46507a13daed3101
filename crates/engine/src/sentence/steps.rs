//! What sentence-transformers does to pooled rows: modules `Dense` and `Normalize`, in any order. On the host, where the
//! rows end anyway; a `Dense` of 768 x 768 is a thousandth of the encoder's work on a text of 15 tokens.

use mlxt_backend::{Activation, reference};
use mlxt_models::Weights;

use super::dense::Dense;
use super::embeddings::normalize;
use crate::Result;

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

/// A step with its weights.
pub(super) enum Loaded {
    Dense { weight: Vec<f32>, bias: Vec<f32>, activation: Activation },
    Normalize,
}

impl Loaded {
    /// Reads a step's weights, if it has any.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if they are missing, damaged or not what the settings say.
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
}
