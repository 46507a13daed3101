//! Token, position and type embeddings, as far as there are any: summed, normalised, and widened before or after that
//! where they are narrower than the layers.

use mlxt_backend::{Activation, Backend, LinearWeight, Lookup, MatrixSource, NormSource, Precision, TokenBatch};

use super::matrix;
use crate::arch::{Positions, Widen};
use crate::weights::Loader;
use crate::{Config, Result};

/// The first part of an encoder. Tables that are packed are unpacked as they are loaded.
#[derive(Debug)]
pub(crate) struct Embeddings<T, M, N> {
    words: T,
    positions: Option<T>,
    types: Option<T>,
    /// Only if embeddings and layers differ in size.
    widen_first: Option<M>,
    norm: N,
    /// The same, of models that widen what has been normalised.
    widen_last: Option<M>,
}

impl Embeddings<LinearWeight, MatrixSource, NormSource> {
    pub(crate) fn request(loader: &mut Loader<'_>, config: &Config, precision: Precision) -> Self {
        let (cols, hidden, names) = (config.embedding_size, config.hidden_size(), &config.architecture.names);
        let mut table = |name: &str, entries: usize| loader.weight(name, entries, cols);
        let words = table(names.words, config.vocab_size());
        let positions = config.position_table.then(|| table("embeddings.position_embeddings", config.positions));
        let types =
            (config.type_vocab_size() > 0).then(|| table("embeddings.token_type_embeddings", config.type_vocab_size()));
        let (mut widen_first, mut widen_last, mut normed) = (None, None, cols);
        match names.widen {
            Widen::BeforeNorm(name) if cols != hidden => {
                widen_first = Some(matrix(loader.linear(name, hidden, cols, false), precision));
                normed = hidden;
            }
            Widen::AfterNorm(name) if cols != hidden => {
                widen_last = Some(matrix(loader.linear(name, hidden, cols, true), precision));
            }
            _ => {}
        }
        let norm = loader.layer_norm(names.embedding_norm, normed, config);
        Self { words, positions, types, widen_first, norm, widen_last }
    }

    /// The word table, which decoders may share.
    pub(crate) fn words(&self) -> &LinearWeight {
        &self.words
    }

    pub(crate) fn load<B: Backend>(self, backend: &B) -> Result<Embeddings<B::Table, B::Matrix, B::Norm>> {
        Ok(Embeddings {
            words: backend.table(self.words.full())?,
            positions: self.positions.map(|table| backend.table(table.full())).transpose()?,
            types: self.types.map(|table| backend.table(table.full())).transpose()?,
            widen_first: self.widen_first.map(|source| backend.matrix(source)).transpose()?,
            norm: backend.norm_weights(self.norm)?,
            widen_last: self.widen_last.map(|source| backend.matrix(source)).transpose()?,
        })
    }
}

impl<T, M, N> Embeddings<T, M, N> {
    /// `[rows, hidden]`. The ids must be within the config's sizes.
    pub(crate) fn forward<B>(&self, backend: &B, batch: &TokenBatch, config: &Config) -> Result<B::Tensor>
    where
        B: Backend<Table = T, Matrix = M, Norm = N>,
    {
        let positions = positions(batch, config);
        let mut lookups = vec![Lookup { table: &self.words, ids: batch.ids() }];
        lookups.extend(self.positions.as_ref().map(|table| Lookup { table, ids: &positions }));
        lookups.extend(self.types.as_ref().map(|table| Lookup { table, ids: batch.type_ids() }));
        let mut x = backend.embed(&lookups)?; // [rows, embedding]
        if let Some(widen) = &self.widen_first {
            x = backend.linear(&x, widen, Activation::Identity)?; // [rows, hidden]
        }
        x = backend.norm(x, None, &self.norm)?;
        if let Some(widen) = &self.widen_last {
            x = backend.linear(&x, widen, Activation::Identity)?; // [rows, hidden]
        }
        Ok(x)
    }
}

/// The position of each token in its sequence, `[rows]`.
fn positions(batch: &TokenBatch, config: &Config) -> Vec<u32> {
    let uncounted = match config.architecture.positions {
        Positions::FromZero => None,
        Positions::AfterPadding => config.pad_token_id(),
    };
    let mut positions = Vec::with_capacity(batch.ids().len());
    for range in batch.segments().ranges() {
        let mut next = config.first_position;
        match uncounted {
            None => positions.extend(next..next + range.len() as u32),
            Some(padding) => positions.extend(batch.ids()[range].iter().map(|&id| {
                let position = if id == padding { id } else { next };
                next += u32::from(id != padding);
                position
            })),
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions_in(model_type: &str) -> Vec<u32> {
        let config = Config::from_json(&format!(r#"{{"model_type": "{model_type}", "pad_token_id": 1}}"#)).unwrap();
        positions(&TokenBatch::from_sequences(&[vec![0, 7, 1, 8, 2], vec![1, 1], vec![9, 2]]).unwrap(), &config)
    }

    #[test]
    fn padding_tokens_in_a_text_are_not_counted_by_roberta() {
        assert_eq!(positions_in("bert"), [0, 1, 2, 3, 4, 0, 1, 0, 1]);
        assert_eq!(positions_in("roberta"), [2, 3, 1, 4, 5, 1, 1, 2, 3]);
    }
}
