//! The parts every encoder here is made of, each described once and computed once.
//!
//! A part exists in two forms of one type: as a checkpoint's tensors (`Block<MatrixSource, NormSource>`: requested,
//! checked, nothing copied) and on a backend (`Block<B::Matrix, B::Norm>`, by `load`). So everything that does not fit
//! is known before the first byte reaches a device.

mod block;
mod embeddings;
mod pooler;
mod relative;
mod squares;

pub(crate) use block::{Block, Stream};
pub(crate) use embeddings::Embeddings;
pub(crate) use pooler::{NAME as POOLER, Pooler};
pub(crate) use relative::{Relative, RelativeParts};

use mlxt_backend::{LinearPart, MatrixSource, Precision};

/// A matrix of one layer.
pub(crate) fn matrix(part: LinearPart, precision: Precision) -> MatrixSource {
    MatrixSource::new(vec![part], precision)
}
