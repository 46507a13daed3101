//! A loaded model behind one object-safe trait: where the backend's type ends.
//!
//! Models are generic over their backend; everything above is not. The type is erased once per forward, here.

use mlxt_backend::{Backend, DeviceInfo, Precision, Shaped, TokenBatch};
use mlxt_models::{Config, Encoder, Head, Hidden, Pooling, Task, Weights, pool};

use crate::Result;

/// What really ran: on which device, why that one, in which precision, on how many threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The device, its hardware and how it is used.
    pub device: DeviceInfo,
    /// How weights are kept and multiplied.
    pub precision: Precision,
    /// Threads of the host that compute.
    pub threads: usize,
    /// Why this device.
    pub why: String,
}

/// Values of logits brought to the host at once: rows of a vocabulary are long (64 MB are 64 rows of XLM-R's).
const LOGITS_AT_ONCE: usize = 1 << 24;

/// Rows of one width on the host, `[rows, cols]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    cols: usize,
    data: Vec<f32>,
}

impl Rows {
    fn new(cols: usize, data: Vec<f32>) -> Self {
        Self { cols, data }
    }

    /// One row more, as wide as those before.
    pub(crate) fn push(&mut self, row: &[f32]) {
        self.cols = row.len();
        self.data.extend_from_slice(row);
    }

    /// Columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row by row.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.cols.max(1))
    }
}

/// The last hidden states of a batch, and what its pooler makes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct HiddenStates {
    /// One row for each token, `[rows, hidden]`.
    pub hidden: Rows,
    /// One row for each sequence, `[sequences, hidden]`, if the model has a pooler.
    pub pooler: Option<Rows>,
}

/// A model on a device. May be called from several threads at once.
pub trait Session: Send + Sync {
    /// What this runs on.
    fn info(&self) -> &Info;

    /// Columns of the hidden states.
    fn hidden_size(&self) -> usize;

    /// The last hidden states.
    ///
    /// # Errors
    /// Ids outside the vocabulary, sequences longer than the model's positions, the device's own.
    fn hidden(&self, batch: &TokenBatch) -> Result<HiddenStates>;

    /// The last hidden states alone, `[rows, hidden]`: what a benchmark times, from ids on the host to values on the host.
    ///
    /// # Errors
    /// As [`Session::hidden`].
    fn last_hidden(&self, batch: &TokenBatch) -> Result<Rows>;

    /// The hidden states pooled to one row for each sequence, without the first `skipped` of each; several poolings stand side
    /// by side: `[sequences, poolings * hidden]`.
    ///
    /// # Errors
    /// As [`Session::hidden`]; a sequence of which nothing is left.
    fn pooled(&self, batch: &TokenBatch, poolings: &[Pooling], skipped: usize) -> Result<Rows>;

    /// What the task's head makes of the hidden states of `rows`; a row of logits depends on its own sequence only.
    /// `each` gets a place in `rows` and its logits, in order.
    ///
    /// # Errors
    /// As [`Session::hidden`]; [`mlxt_models::Error::NoHead`] if the model was loaded without a task; those of `each`.
    fn logits(&self, batch: &TokenBatch, rows: &[u32], each: &mut dyn FnMut(usize, &[f32]) -> Result<()>)
    -> Result<()>;

    /// What the task's head makes of the row that stands for each sequence, `[sequences, outputs]`.
    ///
    /// # Errors
    /// As [`Session::logits`].
    fn sequence_logits(&self, batch: &TokenBatch) -> Result<Rows>;
}

/// A model on the backend `B`.
pub(crate) struct EngineSession<B: Backend> {
    backend: B,
    encoder: Encoder<B>,
    head: Option<Head<B>>,
    info: Info,
}

impl<B: Backend> EngineSession<B> {
    /// Puts the weights on the backend, with the head of a task if there is one.
    pub(crate) fn load(backend: B, config: &Config, weights: &Weights, info: Info, task: Option<Task>) -> Result<Self> {
        let (encoder, head) = match task {
            None => (Encoder::load(&backend, config, weights, info.precision)?, None),
            Some(task) => {
                let (encoder, head) = Encoder::load_for(&backend, config, weights, info.precision, task)?;
                (encoder, Some(head))
            }
        };
        Ok(Self { backend, encoder, head, info })
    }

    fn head(&self) -> Result<&Head<B>> {
        Ok(self.head.as_ref().ok_or(mlxt_models::Error::NoHead)?)
    }

    fn read(&self, tensor: &B::Tensor) -> Result<Rows> {
        Ok(Rows::new(tensor.cols(), self.backend.read(tensor)?))
    }

    /// Hidden states of which the first `skipped` of each sequence are gone, as one row for each, `[sequences, hidden]`.
    fn pooled_by(&self, pooling: Pooling, hidden: &Hidden<B>, skipped: usize) -> Result<Rows> {
        let mut rows = self.read(&pool(&self.backend, hidden, pooling)?)?;
        if pooling == Pooling::WeightedMean && skipped > 0 {
            // The weights of n rows after s others are s + 1 .. s + n: a mean of s and one of 1 .. n, which have sums s n
            // and n (n + 1) / 2.
            let means = self.read(&pool(&self.backend, hidden, Pooling::Mean)?)?;
            let counts = hidden.segments.ranges().map(|range| range.len() as f32);
            for ((row, mean), count) in rows.data.chunks_exact_mut(means.cols).zip(means.iter()).zip(counts) {
                let (even, rising) = (2.0 * skipped as f32, count + 1.0);
                row.iter_mut().zip(mean).for_each(|(x, mean)| *x = (even * mean + rising * *x) / (even + rising));
            }
        }
        Ok(rows)
    }
}

impl<B: Backend> Session for EngineSession<B> {
    fn info(&self) -> &Info {
        &self.info
    }

    fn hidden_size(&self) -> usize {
        self.encoder.config().hidden_size()
    }

    fn hidden(&self, batch: &TokenBatch) -> Result<HiddenStates> {
        let hidden = self.encoder.forward(&self.backend, batch)?;
        let pooler = if self.encoder.has_pooler() {
            Some(self.read(&self.encoder.pooler(&self.backend, &hidden)?)?)
        } else {
            None
        };
        Ok(HiddenStates { hidden: self.read(&hidden.tensor)?, pooler })
    }

    fn last_hidden(&self, batch: &TokenBatch) -> Result<Rows> {
        self.read(&self.encoder.forward(&self.backend, batch)?.tensor)
    }

    fn pooled(&self, batch: &TokenBatch, poolings: &[Pooling], skipped: usize) -> Result<Rows> {
        let hidden = self.encoder.forward(&self.backend, batch)?.skip(&self.backend, skipped)?;
        let parts = poolings.iter().map(|&pooling| self.pooled_by(pooling, &hidden, skipped));
        let mut parts = parts.collect::<Result<Vec<Rows>>>()?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let sequences = batch.segments().count();
        let mut data = Vec::with_capacity(parts.iter().map(|part| part.data.len()).sum());
        for row in 0..sequences {
            for part in &parts {
                data.extend_from_slice(&part.data[row * part.cols..][..part.cols]);
            }
        }
        Ok(Rows::new(parts.iter().map(Rows::cols).sum(), data))
    }

    fn logits(
        &self,
        batch: &TokenBatch,
        rows: &[u32],
        each: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let head = self.head()?;
        let hidden = self.encoder.forward(&self.backend, batch)?;
        let at_once = (LOGITS_AT_ONCE / head.outputs().max(1)).max(1);
        for (part, rows) in rows.chunks(at_once).enumerate() {
            let rows = self.backend.take_rows(&hidden.tensor, rows)?;
            let logits = self.read(&head.forward(&self.backend, &rows)?)?;
            for (row, logits) in logits.iter().enumerate() {
                each(part * at_once + row, logits)?;
            }
        }
        Ok(())
    }

    fn sequence_logits(&self, batch: &TokenBatch) -> Result<Rows> {
        let head = self.head()?;
        let hidden = self.encoder.forward(&self.backend, batch)?;
        let rows = head.sequence_rows(&self.backend, &hidden)?;
        self.read(&head.forward(&self.backend, &rows)?)
    }
}
