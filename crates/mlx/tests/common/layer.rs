//! A small encoder layer of random weights, end to end.

use mlxt_backend::conformance::random::Random;
use mlxt_backend::{
    Activation, Attention, Backend, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind, NormSource,
    Precision, Reduction, Result, Rotation, Segments,
};

/// Columns of activations.
pub(crate) const HIDDEN: usize = 16;
const HEADS: usize = 2;

/// Its weights.
pub(crate) struct Layer<B: Backend> {
    words: B::Table,
    qkv: B::Matrix,
    up: B::Matrix,
    down: B::Matrix,
    norm: B::Norm,
}

fn matrix<B: Backend>(backend: &B, random: &mut Random, outputs: usize, inputs: usize) -> Result<B::Matrix> {
    let scale = 1.0 / (inputs as f32).sqrt();
    let weight = HostTensor::from_f32(&[outputs, inputs], &random.normals(outputs * inputs, scale))?.into();
    let bias = Some(HostTensor::from_f32(&[outputs], &random.normals(outputs, 1.0))?);
    backend.matrix(MatrixSource::new(vec![LinearPart { weight, bias }], Precision::F32))
}

impl<B: Backend> Layer<B> {
    pub(crate) fn new(backend: &B) -> Result<Self> {
        let random = &mut Random::new(3);
        let gain = HostTensor::from_f32(&[HIDDEN], &[1.0; HIDDEN])?;
        Ok(Self {
            words: backend.table(HostTensor::from_f32(&[50, HIDDEN], &random.normals(50 * HIDDEN, 1.0))?)?,
            qkv: matrix(backend, random, 3 * HIDDEN, HIDDEN)?,
            up: matrix(backend, random, 4 * HIDDEN, HIDDEN)?,
            down: matrix(backend, random, HIDDEN, 4 * HIDDEN)?,
            // No epsilon: a spare row of zeros would become no number at all.
            norm: backend.norm_weights(NormSource { kind: NormKind::LayerNorm, gain, shift: None, eps: 0.0 })?,
        })
    }

    /// Every row, and then one row for each sequence.
    pub(crate) fn forward(&self, b: &B, lengths: &[usize], mask: Mask) -> Result<(Vec<f32>, Vec<f32>)> {
        let segments = Segments::from_lengths(lengths)?;
        let layout = b.layout(&segments)?;
        let ids: Vec<u32> = segments.ranges().flat_map(|r| (0..r.len()).map(|i| i as u32 * 7 % 50)).collect();
        let x = b.norm(b.embed(&[Lookup { table: &self.words, ids: &ids }])?, None, &self.norm)?;
        let head_size = HIDDEN / HEADS;
        let rotation = Rotation { heads: HEADS, head_size, theta: 10_000.0 };
        let qkv = b.rotate(b.linear(&x, &self.qkv, Activation::Identity)?, &layout, &rotation)?;
        let attention = Attention { heads: HEADS, head_size, scale: 0.35, mask };
        let x = b.norm(b.attention(&qkv, &layout, &attention, None)?, Some(&x), &self.norm)?;
        let up = b.linear(&x, &self.up, Activation::Gelu)?;
        let x = b.norm(b.linear(&up, &self.down, Activation::Identity)?, Some(&x), &self.norm)?;
        let pooled = b.reduce_rows(&x, &layout, Reduction::Mean)?;
        Ok((b.read(&x)?, b.read(&pooled)?))
    }
}
