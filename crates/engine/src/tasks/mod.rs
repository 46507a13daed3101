//! Tasks of models with a head: texts in, typed answers out, equal to those of Hugging Face pipelines.
//!
//! Each file is one task: what goes into the model, and what its logits are made into. The way from texts to batches is
//! `pipeline.rs`, the heads themselves are in `mlxt-models`. A text that is too long is an error unless
//! [`crate::Builder::truncate`] is asked for; pipelines cut it silently.

mod answer;
mod classify;
mod fill_mask;
mod rerank;
mod spans;
mod tag;
mod words;
mod zero_shot;

pub use self::answer::{Answer, QuestionAnswerer};
pub use self::classify::{Scored, TextClassifier};
pub use self::fill_mask::{FillMask, Guess};
pub use self::rerank::{Ranked, Reranker};
pub use self::tag::{Aggregation, Entity, TokenClassifier};
pub use self::zero_shot::ZeroShotClassifier;

use mlxt_models::Task;

use crate::options::Options;
use crate::pipeline::{FolderSettings, Pipeline};
use crate::{Result, hub};

/// Loads the model `name` with the head of `task`.
fn load(name: &str, options: &Options, task: Task) -> Result<Pipeline> {
    let folder = hub::find(name, options)?;
    Pipeline::load(&folder.transformer(), options, FolderSettings::default(), Some(task))
}

/// `eˣ / Σ eˣ`, summed in f64.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| f64::from(x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|x| (x / sum) as f32).collect()
}

/// `1 / (1 + e⁻ˣ)`
fn sigmoid(x: f32) -> f32 {
    (1.0 + f64::from(-x).exp()).recip() as f32
}

/// The place of the largest value, the first of several.
fn argmax(values: &[f32]) -> usize {
    let first_largest = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).reduce(first_largest).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_logits_is_finite() {
        assert_eq!(softmax(&[1e30, 1e30, -1e30]), [0.5, 0.5, 0.0]);
        assert_eq!(softmax(&[7.0]), [1.0]);
        assert_eq!((sigmoid(0.0), sigmoid(1e9), sigmoid(-1e9)), (0.5, 1.0, 0.0));
    }

    #[test]
    fn the_first_of_equal_values_is_the_largest() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }
}
