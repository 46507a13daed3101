//! Heads: what a task adds to an encoder. All of them are one path over rows of hidden states: a dense layer with its
//! activation, a norm, a last product to vocabulary, labels or start and end; some have the last product only.
//!
//! Which rows go through is the caller's to say: masked tokens, a row for each sequence, or all. A row's result depends
//! on that row alone. How the tensors are called is in `arch/`.

use mlxt_backend::{Activation, Backend, LinearPart, LinearWeight, MatrixSource, NormSource, Precision, Shaped};
use serde_json::Value;

use super::Task;
use crate::arch::{HeadDense, HeadNames};
use crate::layers::{POOLER, matrix};
use crate::weights::Loader;
use crate::{Config, Hidden, Pooling, Result, pool};

/// A head, as tensors of a checkpoint or on a backend.
#[derive(Debug)]
pub(crate) struct HeadParts<M, N> {
    dense: Option<(M, Activation)>,
    norm: Option<N>,
    out: M,
}

/// A task's head whose weights are on the backend `B`.
#[derive(Debug)]
pub struct Head<B: Backend> {
    parts: HeadParts<B::Matrix, B::Norm>,
    pooling: Pooling,
}

impl HeadParts<MatrixSource, NormSource> {
    /// `words` is the table that a decoder without weights of its own shares.
    pub(crate) fn request(
        loader: &mut Loader<'_>,
        config: &Config,
        precision: Precision,
        (task, names): (Task, &HeadNames),
        words: &LinearWeight,
    ) -> Result<Self> {
        let hidden = config.hidden_size();
        let (inner, outputs) = match task {
            Task::FillMask => (config.embedding_size, config.vocab_size()),
            Task::Classify | Task::Rerank | Task::ZeroShot | Task::TokenClassify => (hidden, config.labels()?.len()),
            Task::Answer => (hidden, 2),
        };
        let dense = names.dense.as_ref().map(|dense| match dense {
            HeadDense::Pooler => (loader.linear(POOLER, hidden, hidden, true), Activation::Tanh),
            HeadDense::Own(name, activation) => {
                let part = loader.outside(|loader| loader.linear(name, inner, hidden, config.biases.head));
                (part, config.activation_of(*activation))
            }
        });
        let tied = task == Task::FillMask && config.raw("tie_word_embeddings") != Some(&Value::Bool(false));
        loader.outside(|loader| {
            let norm = names.norm.map(|name| loader.layer_norm(name, inner, config));
            let biased = task != Task::FillMask || config.biases.decoder;
            let out = out(loader, names, (outputs, inner), biased, (words, tied));
            Ok(Self {
                dense: dense.map(|(part, activation)| (matrix(part, precision), activation)),
                norm,
                out: matrix(out, precision),
            })
        })
    }

    pub(crate) fn load<B: Backend>(self, backend: &B, config: &Config) -> Result<Head<B>> {
        let dense = self.dense.map(|(source, activation)| backend.matrix(source).map(|dense| (dense, activation)));
        let parts = HeadParts {
            dense: dense.transpose()?,
            norm: self.norm.map(|source| backend.norm_weights(source)).transpose()?,
            out: backend.matrix(self.out)?,
        };
        Ok(Head { parts, pooling: config.classifier_pooling })
    }
}

/// The last product. A decoder in the file counts even where `config.json` says it is tied, as in `transformers`.
fn out(
    loader: &mut Loader<'_>,
    names: &HeadNames,
    (outputs, inputs): (usize, usize),
    biased: bool,
    (words, tied): (&LinearWeight, bool),
) -> LinearPart {
    let bias = names.biases.iter().find(|name| loader.has(name)).or(names.biases.last());
    LinearPart {
        weight: match names.out {
            Some(name) if !tied || loader.has(&format!("{name}.weight")) => loader.weight(name, outputs, inputs),
            _ => words.clone(),
        },
        bias: bias.filter(|_| biased).map(|name| loader.tensor(name, &[outputs])),
    }
}

impl<B: Backend> Head<B> {
    /// The row of each sequence that a classifier of sequences looks at, `[sequences, hidden]`: mostly the first.
    ///
    /// # Errors
    /// The backend's own.
    pub fn sequence_rows(&self, backend: &B, hidden: &Hidden<B>) -> Result<B::Tensor> {
        pool(backend, hidden, self.pooling)
    }

    /// Logits of each row: `[rows, hidden]` to `[rows, outputs]`.
    ///
    /// # Errors
    /// The backend's own.
    pub fn forward(&self, backend: &B, rows: &B::Tensor) -> Result<B::Tensor> {
        let HeadParts { dense, norm, out } = &self.parts;
        let Some((dense, activation)) = dense else {
            return Ok(backend.linear(rows, out, Activation::Identity)?);
        };
        let mut x = backend.linear(rows, dense, *activation)?; // [rows, inner]
        if let Some(norm) = norm {
            x = backend.norm(x, None, norm)?;
        }
        Ok(backend.linear(&x, out, Activation::Identity)?) // [rows, outputs]
    }

    /// Columns of the logits: entries of the vocabulary, labels, or 2 (start and end).
    pub fn outputs(&self) -> usize {
        self.parts.out.rows()
    }
}
