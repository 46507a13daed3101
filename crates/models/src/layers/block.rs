//! One layer: attention, then a feed-forward network, each added to its input and normalised before or after that.

use mlxt_backend::{Activation, Attention, Backend, MatrixSource, NormSource, Precision, Rotation};

use super::{matrix, squares};
use crate::arch::{Order, Up};
use crate::weights::Loader;
use crate::{Config, Result};

/// A layer of an encoder.
#[derive(Debug)]
pub(crate) struct Block<M, N> {
    /// Query, key and value, stacked: one product instead of three.
    qkv: M,
    attention_out: M,
    attention_norm: N,
    /// The first product of the feed-forward network, and whether its second half gates its first.
    up: M,
    gated: bool,
    down: M,
    out_norm: N,
}

impl Block<MatrixSource, NormSource> {
    pub(crate) fn request(loader: &mut Loader<'_>, config: &Config, layer: usize, precision: Precision) -> Self {
        let (names, biases) = (&config.architecture.names, config.biases);
        let of = |layer: usize, name: &str| format!("{}.{layer}.{name}", names.layers);
        let full = |name: &str| of(layer, name);
        let (hidden, wide) = (config.hidden_size(), config.intermediate_size);
        let mut stacked = |parts: &[&str], outputs: usize, bias: bool| {
            let part = |name: &&str| loader.linear(&full(name), outputs / parts.len(), hidden, bias);
            MatrixSource::new(parts.iter().map(part).collect(), precision)
        };
        let qkv = stacked(names.qkv, 3 * hidden, biases.attention);
        let (up, gated) = match names.up {
            Up::Plain(name) => (stacked(&[name], wide, biases.feed_forward), false),
            Up::Gated(parts) => (stacked(parts, 2 * wide, biases.feed_forward), true),
        };
        let out_norm = match config.architecture.order {
            Order::NormLast => full(names.out_norm),
            Order::NormFirst { last_norm } if layer + 1 == config.layers() => last_norm.to_owned(),
            Order::NormFirst { .. } => of(layer + 1, names.out_norm),
        };
        Self {
            qkv,
            attention_out: matrix(
                loader.linear(&full(names.attention_out), hidden, hidden, biases.attention),
                precision,
            ),
            attention_norm: loader.layer_norm(&full(names.attention_norm), hidden, config),
            up,
            gated,
            down: matrix(loader.linear(&full(names.down), hidden, wide, biases.feed_forward), precision),
            out_norm: loader.layer_norm(&out_norm, hidden, config),
        }
    }

    /// The products that make queries, keys and values of tokens.
    pub(crate) fn qkv(&self) -> &MatrixSource {
        &self.qkv
    }

    pub(crate) fn load<B: Backend>(mut self, backend: &B, order: Order) -> Result<Block<B::Matrix, B::Norm>> {
        if matches!(order, Order::NormLast)
            && !self.gated
            && matches!(self.qkv.precision, Precision::Int8 | Precision::Q4)
        {
            self.qkv.input_squares = squares::of_attention(&self.qkv);
            self.up.input_squares = squares::of_norm(&self.attention_norm);
            self.down.input_squares = squares::of_activation(&self.down);
        }
        Ok(Block {
            qkv: backend.matrix(self.qkv)?,
            attention_out: backend.matrix(self.attention_out)?,
            attention_norm: backend.norm_weights(self.attention_norm)?,
            up: backend.matrix(self.up)?,
            gated: self.gated,
            down: backend.matrix(self.down)?,
            out_norm: backend.norm_weights(self.out_norm)?,
        })
    }
}

impl<M, N> Block<M, N> {
    /// The `layer`th layer on `x`.
    pub(crate) fn forward<B>(
        &self,
        backend: &B,
        x: &Stream<B::Tensor>,
        layout: &B::Layout,
        config: &Config,
        layer: usize,
        relative: Option<&B::Relative>,
    ) -> Result<Stream<B::Tensor>>
    where
        B: Backend<Matrix = M, Norm = N>,
    {
        let (heads, head_size) = (config.heads(), config.hidden_size() / config.heads());
        let (scale, sight) = (config.attending.scale, config.attending.layers[layer]);
        let order = config.architecture.order;

        let mut qkv = backend.linear(&x.normed, &self.qkv, Activation::Identity)?; // [rows, 3 * hidden]
        if let Some(theta) = sight.theta {
            qkv = backend.rotate(qkv, layout, &Rotation { heads, head_size, theta })?;
        }
        let attention = Attention { heads, head_size, scale, mask: sight.mask };
        let seen = backend.attention(&qkv, layout, &attention, relative)?; // [rows, hidden]
        let seen = backend.linear(&seen, &self.attention_out, Activation::Identity)?;
        let x = x.add(backend, seen, &self.attention_norm, order)?;

        let wide = if self.gated {
            let both = backend.linear(&x.normed, &self.up, Activation::Identity)?; // [rows, 2 * intermediate]
            backend.gate(&both, config.activation)?
        } else {
            backend.linear(&x.normed, &self.up, config.activation)?
        }; // [rows, intermediate]
        let out = backend.linear(&wide, &self.down, Activation::Identity)?; // [rows, hidden]
        x.add(backend, out, &self.out_norm, order)
    }
}

/// What goes from layer to layer, `[rows, hidden]`.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    /// What the next product reads, and in the end the hidden states.
    pub normed: T,
    /// What the next result is added to, where that is something else.
    sum: Option<T>,
}

impl<T> Stream<T> {
    /// Of the embeddings.
    pub(crate) fn new(embedded: T) -> Self {
        Self { normed: embedded, sum: None }
    }

    /// Adds `out`, and normalises.
    fn add<B: Backend<Tensor = T>>(&self, backend: &B, out: T, norm: &B::Norm, order: Order) -> Result<Self> {
        Ok(match order {
            Order::NormLast => Self { normed: backend.norm(out, Some(&self.normed), norm)?, sum: None },
            Order::NormFirst { .. } => {
                let (sum, normed) = backend.add_norm(out, self.sum.as_ref().unwrap_or(&self.normed), norm)?;
                Self { normed, sum: Some(sum) }
            }
        })
    }
}
