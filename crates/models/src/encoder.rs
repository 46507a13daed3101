//! A whole encoder on a backend: token ids in, one hidden state per token out.

use std::collections::BTreeMap;

use mlxt_backend::check::first_beyond;
use mlxt_backend::{Backend, LinearWeight, MatrixSource, NormSource, Precision, Segments, TokenBatch};

use crate::layers::{Block, Embeddings, Pooler, Relative, RelativeParts, Stream};
use crate::tasks::head::{Head, HeadParts};
use crate::tasks::{Task, require};
use crate::weights::Loader;
use crate::{Config, Error, Misfit, Result, Role, Weights};

/// The parts of an encoder, as tensors of a checkpoint or on a backend.
#[derive(Debug)]
struct Parts<T, M, N, R> {
    embeddings: Embeddings<T, M, N>,
    blocks: Vec<Block<M, N>>,
    relative: R,
    pooler: Option<Pooler<M>>,
}

impl Parts<LinearWeight, MatrixSource, NormSource, RelativeParts> {
    fn request(loader: &mut Loader<'_>, config: &Config, precision: Precision) -> Self {
        let embeddings = Embeddings::request(loader, config, precision);
        let blocks = (0..config.layers()).map(|layer| Block::request(loader, config, layer, precision));
        let blocks: Vec<_> = blocks.collect();
        Self {
            embeddings,
            relative: RelativeParts::request(loader, config, &blocks, precision),
            blocks,
            pooler: Pooler::request(loader, config, precision),
        }
    }
}

/// An encoder whose weights are on the backend `B`.
#[derive(Debug)]
pub struct Encoder<B: Backend> {
    config: Config,
    parts: Parts<B::Table, B::Matrix, B::Norm, Relative<B::Relative>>,
}

/// The hidden states of a batch.
#[derive(Debug)]
pub struct Hidden<B: Backend> {
    /// The last layer's output, `[rows, hidden]`.
    pub tensor: B::Tensor,
    /// The batch as the backend knows it.
    pub layout: B::Layout,
    /// Where each sequence lies among the rows.
    pub segments: Segments,
}

impl<B: Backend> Encoder<B> {
    /// Checks all weights against `config`, then loads them onto `backend` in `precision`.
    ///
    /// # Errors
    /// [`Error::Misfit`] with everything that does not fit; [`Error::Backend`] for what the backend refuses.
    pub fn load(backend: &B, config: &Config, weights: &Weights, precision: Precision) -> Result<Self> {
        Ok(Self::load_parts(backend, config, weights, precision, None)?.0)
    }

    /// As [`Encoder::load`], with the head of a task. The pooler is left to the heads that use it.
    ///
    /// # Errors
    /// [`Error::NoSuchTask`] if the checkpoint is of another task; as [`Encoder::load`], what does not fit of the head
    /// in the same report.
    pub fn load_for(
        backend: &B,
        config: &Config,
        weights: &Weights,
        precision: Precision,
        task: Task,
    ) -> Result<(Self, Head<B>)> {
        require(task, config, weights)?;
        let (encoder, head) = Self::load_parts(backend, config, weights, precision, Some(task))?;
        Ok((encoder, head.ok_or(Error::NoHead)?))
    }

    fn load_parts(
        backend: &B,
        config: &Config,
        weights: &Weights,
        precision: Precision,
        task: Option<Task>,
    ) -> Result<(Self, Option<Head<B>>)> {
        let mut loader = Loader::new(weights, config)?;
        let mut parts = Parts::request(&mut loader, config, precision);
        let words = parts.embeddings.words();
        let head = task.map(|task| {
            let names = task.head(config, weights);
            HeadParts::request(&mut loader, config, precision, (task, names), words)
        });
        let head = head.transpose()?;
        let (_, misfit) = loader.finish();
        misfit.check()?;
        if head.is_some() {
            parts.pooler = None;
        }
        let blocks = parts.blocks.into_iter().map(|block| {
            let block = block.load(backend, config.architecture.order);
            weights.forget();
            block
        });
        let parts = Parts {
            embeddings: parts.embeddings.load(backend)?,
            blocks: blocks.collect::<Result<_>>()?,
            relative: parts.relative.load(backend)?,
            pooler: parts.pooler.map(|pooler| pooler.load(backend)).transpose()?,
        };
        let head = head.map(|head| head.load(backend, config)).transpose()?;
        weights.forget();
        Ok((Self { config: config.clone(), parts }, head))
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last hidden state of each token, `[rows, hidden]`. A sequence's rows do not depend on the others.
    ///
    /// Token types are looked at only by a model that has them ([`Config::type_vocab_size`]).
    ///
    /// # Errors
    /// [`Error::TooLong`] and [`Error::Id`], before anything is computed; the backend's own.
    pub fn forward(&self, backend: &B, batch: &TokenBatch) -> Result<Hidden<B>> {
        self.check_lengths(batch)?;
        let layout = backend.layout(batch.segments())?;
        // Backends look at every id; a second look, which takes 2 us for 4000, is only for those that were refused.
        let embedded = self.parts.embeddings.forward(backend, batch, &self.config);
        let embedded = embedded.map_err(|error| self.check_ids(batch).err().unwrap_or(error))?;
        let mut x = Stream::new(embedded); // [rows, hidden]
        for (layer, block) in self.parts.blocks.iter().enumerate() {
            x = block.forward(backend, &x, &layout, &self.config, layer, self.parts.relative.of(layer))?;
        }
        Ok(Hidden { tensor: x.normed, layout, segments: batch.segments().clone() })
    }

    /// Whether the checkpoint has a pooler.
    pub fn has_pooler(&self) -> bool {
        self.parts.pooler.is_some()
    }

    /// `tanh(dense(first token))` of each sequence, `[sequences, hidden]`.
    ///
    /// # Errors
    /// [`Error::NoPooler`]; the backend's own.
    pub fn pooler(&self, backend: &B, hidden: &Hidden<B>) -> Result<B::Tensor> {
        let pooler = self.parts.pooler.as_ref().ok_or(Error::NoPooler)?;
        let first = hidden.first_rows(backend)?; // [sequences, hidden]
        pooler.forward(backend, &first)
    }

    fn check_lengths(&self, batch: &TokenBatch) -> Result<()> {
        let limit = self.config.max_tokens();
        let mut lengths = batch.segments().ranges().map(|range| range.len()).enumerate();
        let beyond = lengths.find(|&(_, length)| length > limit);
        beyond.map_or(Ok(()), |(sequence, found)| Err(Error::TooLong { sequence, found, limit }))
    }

    fn check_ids(&self, batch: &TokenBatch) -> Result<()> {
        for (sequence, range) in batch.segments().ranges().enumerate() {
            check_ids("token id", sequence, &batch.ids()[range.clone()], self.config.vocab_size())?;
            if self.config.type_vocab_size() > 0 {
                check_ids("token type id", sequence, &batch.type_ids()[range], self.config.type_vocab_size())?;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Hidden<B> {
    /// Without the first `skipped` rows of each sequence: what is pooled where a prompt is not.
    ///
    /// # Errors
    /// The backend's own; one is that a sequence would have no rows left.
    pub fn skip(self, backend: &B, skipped: usize) -> Result<Self> {
        if skipped == 0 {
            return Ok(self);
        }
        let kept = || self.segments.ranges().map(|range| (range.start + skipped).min(range.end)..range.end);
        let lengths: Vec<usize> = kept().map(|range| range.len()).collect();
        let segments = Segments::from_lengths(&lengths)?;
        let rows: Vec<u32> = kept().flatten().map(|row| row as u32).collect();
        let tensor = backend.take_rows(&self.tensor, &rows)?; // [rows - sequences * skipped, hidden]
        Ok(Self { tensor, layout: backend.layout(&segments)?, segments })
    }

    /// The first row of each sequence, `[sequences, hidden]`.
    pub(crate) fn first_rows(&self, backend: &B) -> Result<B::Tensor> {
        let rows: Vec<u32> = self.segments.ranges().map(|range| range.start as u32).collect();
        Ok(backend.take_rows(&self.tensor, &rows)?)
    }

    /// The last row of each sequence, `[sequences, hidden]`.
    pub(crate) fn last_rows(&self, backend: &B) -> Result<B::Tensor> {
        let rows: Vec<u32> = self.segments.ranges().map(|range| range.end as u32 - 1).collect();
        Ok(backend.take_rows(&self.tensor, &rows)?)
    }
}

/// What the tensors of a checkpoint are to the model of `config`.
///
/// # Errors
/// None of the checkpoint's: what does not fit is in the answer.
pub(crate) fn fit(config: &Config, weights: &Weights) -> Result<(BTreeMap<String, Role>, Misfit)> {
    let mut loader = Loader::new(weights, config)?;
    Parts::request(&mut loader, config, Precision::default());
    Ok(loader.finish())
}

fn check_ids(what: &'static str, sequence: usize, ids: &[u32], limit: usize) -> Result<()> {
    match first_beyond(ids, limit) {
        None => Ok(()),
        Some(position) => Err(Error::Id { what, sequence, position, found: ids[position], limit }),
    }
}
