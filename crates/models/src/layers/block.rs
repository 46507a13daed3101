//! One layer: attention, then a feed-forward network, each added to its input and normalised afterwards.

use mlxt_backend::{Activation, Attention, Backend, Mask, MatrixSource, NormSource, Precision};

use super::matrix;
use crate::weights::Loader;
use crate::{Config, Result};

/// A layer of an encoder.
#[derive(Debug)]
pub(crate) struct Block<M, N> {
    /// Query, key and value, stacked: one product instead of three.
    qkv: M,
    attention_out: M,
    attention_norm: N,
    up: M,
    down: M,
    out_norm: N,
}

impl Block<MatrixSource, NormSource> {
    pub(crate) fn request(loader: &mut Loader<'_>, config: &Config, layer: usize, precision: Precision) -> Self {
        let names = &config.architecture.names;
        let full = |name: &str| format!("{}.{layer}.{name}", names.layers);
        let (hidden, wide) = (config.hidden_size(), config.intermediate_size);
        let qkv = [names.query, names.key, names.value];
        Self {
            qkv: MatrixSource {
                parts: qkv.into_iter().map(|name| loader.linear(&full(name), hidden, hidden)).collect(),
                precision,
            },
            attention_out: matrix(loader.linear(&full(names.attention_out), hidden, hidden), precision),
            attention_norm: loader.layer_norm(&full(names.attention_norm), hidden, config.eps),
            up: matrix(loader.linear(&full(names.up), wide, hidden), precision),
            down: matrix(loader.linear(&full(names.down), hidden, wide), precision),
            out_norm: loader.layer_norm(&full(names.out_norm), hidden, config.eps),
        }
    }

    pub(crate) fn load<B: Backend>(self, backend: &B) -> Result<Block<B::Matrix, B::Norm>> {
        Ok(Block {
            qkv: backend.matrix(self.qkv)?,
            attention_out: backend.matrix(self.attention_out)?,
            attention_norm: backend.norm_weights(self.attention_norm)?,
            up: backend.matrix(self.up)?,
            down: backend.matrix(self.down)?,
            out_norm: backend.norm_weights(self.out_norm)?,
        })
    }
}

impl<M, N> Block<M, N> {
    /// `[rows, hidden]` to `[rows, hidden]`.
    pub(crate) fn forward<B>(
        &self,
        backend: &B,
        x: &B::Tensor,
        layout: &B::Layout,
        config: &Config,
    ) -> Result<B::Tensor>
    where
        B: Backend<Matrix = M, Norm = N>,
    {
        let head_size = config.hidden_size() / config.heads();
        let scale = (head_size as f32).sqrt().recip();
        let attention = Attention { heads: config.heads(), head_size, scale, mask: Mask::Full };

        let qkv = backend.linear(x, &self.qkv, Activation::Identity)?; // [rows, 3 * hidden]
        let seen = backend.attention(&qkv, layout, &attention)?; // [rows, hidden]
        let seen = backend.linear(&seen, &self.attention_out, Activation::Identity)?;
        let x = backend.norm(seen, Some(x), &self.attention_norm)?;

        let wide = backend.linear(&x, &self.up, config.activation)?; // [rows, intermediate]
        let out = backend.linear(&wide, &self.down, Activation::Identity)?; // [rows, hidden]
        Ok(backend.norm(out, Some(&x), &self.out_norm)?)
    }
}
