//! A loaded model behind one object-safe trait: where the backend's type ends.
//!
//! Models are generic over their backend; everything above is not. The type is erased once per forward, here.

use mlxt_backend::{Backend, DeviceInfo, Precision, Shaped, TokenBatch};
use mlxt_models::{Config, Encoder, Pooling, Weights, pool};

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

/// Rows of one width on the host, `[rows, cols]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    cols: usize,
    data: Vec<f32>,
}

impl Rows {
    fn new(cols: usize, data: Vec<f32>) -> Self {
        Self { cols, data }
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

    /// The hidden states pooled to one row for each sequence; several poolings stand side by side:
    /// `[sequences, poolings * hidden]`.
    ///
    /// # Errors
    /// As [`Session::hidden`].
    fn pooled(&self, batch: &TokenBatch, poolings: &[Pooling]) -> Result<Rows>;
}

/// A model on the backend `B`.
pub(crate) struct EngineSession<B: Backend> {
    backend: B,
    encoder: Encoder<B>,
    info: Info,
}

impl<B: Backend> EngineSession<B> {
    /// Puts the weights on the backend.
    pub(crate) fn load(backend: B, config: &Config, weights: &Weights, info: Info) -> Result<Self> {
        let encoder = Encoder::load(&backend, config, weights, info.precision)?;
        Ok(Self { backend, encoder, info })
    }

    fn read(&self, tensor: &B::Tensor) -> Result<Rows> {
        Ok(Rows::new(tensor.cols(), self.backend.read(tensor)?))
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

    fn pooled(&self, batch: &TokenBatch, poolings: &[Pooling]) -> Result<Rows> {
        let hidden = self.encoder.forward(&self.backend, batch)?;
        let parts = poolings.iter().map(|&pooling| self.read(&pool(&self.backend, &hidden, pooling)?));
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
}
