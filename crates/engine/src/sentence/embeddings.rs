//! Sentence embeddings on the host: one row for each text, and how alike two are.

use std::sync::Arc;

use crate::Info;

/// Below this a row's length counts as this, as `torch.nn.functional.normalize` has it: zeros stay zeros.
const SMALLEST_LENGTH: f64 = 1e-12;

/// One embedding for each text, in input order.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    dim: usize,
    data: Vec<f32>,
    tokens: Vec<usize>,
    info: Arc<Info>,
}

impl Embeddings {
    /// Rows of `dim` columns, `[tokens.len(), dim]`.
    pub(super) fn new(dim: usize, data: Vec<f32>, tokens: Vec<usize>, info: Arc<Info>) -> Self {
        Self { dim, data, tokens, info }
    }

    /// Number of texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Columns of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row by row, `[len, dim]`.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All values, row by row, without copying them.
    #[must_use]
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The embedding of text `i`, `[dim]`.
    ///
    /// # Panics
    /// If there is no text `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.len(), "row {i} of {}", self.len());
        &self.data[i * self.dim..][..self.dim]
    }

    /// The embeddings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.len()).map(|i| self.row(i))
    }

    /// Tokens of each text, special tokens included, after cutting.
    #[must_use]
    pub fn tokens(&self) -> &[usize] {
        &self.tokens
    }

    /// What really ran.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The cosine similarity of texts `i` and `j`, in −1..=1.
    ///
    /// # Panics
    /// If there is no text `i` or `j`.
    #[must_use]
    pub fn similarity(&self, i: usize, j: usize) -> f32 {
        cosine_similarity(self.row(i), self.row(j))
    }
}

/// The cosine of the angle between two vectors of one length, in −1..=1; 0 if either is zero.
#[must_use]
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> f32 {
    let dot: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let lengths = length(a).max(SMALLEST_LENGTH) * length(b).max(SMALLEST_LENGTH);
    (dot / lengths).clamp(-1.0, 1.0) as f32
}

/// Scales `row` to unit length: `x / max(‖x‖, 1e-12)`.
pub(super) fn normalize(row: &mut [f32]) {
    let length = length(row).max(SMALLEST_LENGTH);
    for x in row {
        *x = (f64::from(*x) / length) as f32;
    }
}

fn length(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_unit_length_and_zeros_stay() {
        let mut row = [3.0, 4.0];
        normalize(&mut row);
        assert_eq!(row, [0.6, 0.8]);
        let mut zeros = [0.0; 4];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 4]);
        let mut huge = [1e38_f32, 1e38];
        normalize(&mut huge);
        assert_eq!(huge, [std::f32::consts::FRAC_1_SQRT_2; 2]);
    }

    #[test]
    fn cosine_is_that_of_the_angle() {
        assert_eq!(cosine_similarity(&[2.0, 0.0], &[0.0, 9.0]), 0.0);
        assert_eq!(cosine_similarity(&[1.0, 1.0], &[-2.0, -2.0]), -1.0);
        assert_eq!(cosine_similarity(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert!((cosine_similarity(&[1.0, 0.0], &[1.0, 1.0]) - 0.707_106_77).abs() < 1e-7);
    }
}
