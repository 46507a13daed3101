//! Sentence embeddings: the hidden states of a sequence pooled into one row.
//!
//! Normalising to unit length happens on the host, where the rows end anyway.

use mlxt_backend::{Backend, Reduction};

use crate::{Hidden, Result};

/// How the rows of a sequence become one, in the terms of sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The largest value of each column.
    Max,
    /// The first row.
    Cls,
    /// The last row.
    Last,
    /// Their sum over the square root of their number.
    MeanSqrtLength,
    /// Their mean with weights 1, 2, 3 .. by position.
    WeightedMean,
}

/// One row for each sequence, `[sequences, hidden]`.
///
/// # Errors
/// The backend's own.
pub fn pool<B: Backend>(backend: &B, hidden: &Hidden<B>, pooling: Pooling) -> Result<B::Tensor> {
    let reduction = match pooling {
        Pooling::Cls => return hidden.first_rows(backend),
        Pooling::Last => return hidden.last_rows(backend),
        Pooling::Mean => Reduction::Mean,
        Pooling::Max => Reduction::Max,
        Pooling::MeanSqrtLength => Reduction::MeanSqrtLength,
        Pooling::WeightedMean => Reduction::WeightedMean,
    };
    Ok(backend.reduce_rows(&hidden.tensor, &hidden.layout, reduction)?)
}
