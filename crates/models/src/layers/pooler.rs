//! The pooler: a dense layer with tanh over each sequence's first token, trained with the next-sentence objective.

use mlxt_backend::{Activation, Backend, MatrixSource, Precision};

use super::matrix;
use crate::weights::Loader;
use crate::{Config, Result};

/// The pooler's layer, by its name in checkpoints.
pub(crate) const NAME: &str = "pooler.dense";

/// The last part of an encoder, where a checkpoint has it.
#[derive(Debug)]
pub(crate) struct Pooler<M> {
    dense: M,
}

impl Pooler<MatrixSource> {
    /// `None` for a checkpoint without one. Half a pooler is a missing tensor.
    pub(crate) fn request(loader: &mut Loader<'_>, config: &Config, precision: Precision) -> Option<Self> {
        let present = config.architecture.pooler && loader.has_part_of(NAME);
        let hidden = config.hidden_size();
        present.then(|| Self { dense: matrix(loader.linear(NAME, hidden, hidden, true), precision) })
    }

    pub(crate) fn load<B: Backend>(self, backend: &B) -> Result<Pooler<B::Matrix>> {
        Ok(Pooler { dense: backend.matrix(self.dense)? })
    }
}

impl<M> Pooler<M> {
    /// First tokens, `[sequences, hidden]`, to `[sequences, hidden]`.
    pub(crate) fn forward<B: Backend<Matrix = M>>(&self, backend: &B, first: &B::Tensor) -> Result<B::Tensor> {
        Ok(backend.linear(first, &self.dense, Activation::Tanh)?)
    }
}
