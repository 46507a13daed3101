//! The trait every backend implements: a few coarse operations, all required, on ragged rows.

use crate::{
    Activation, Arithmetic, Attention, HostTensor, Lookup, MatrixSource, NormSource, Reduction, RelativeSource, Result,
    Rotation, Segments,
};

/// The size of a value that a backend keeps.
pub trait Shaped {
    /// Rows: tokens of an activation, outputs of a matrix, entries of a table.
    fn rows(&self) -> usize;
    /// Columns.
    fn cols(&self) -> usize;
}

/// What a backend says of the device it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name `--device` takes: `cpu`, `mlx:gpu`, `cuda:0`.
    pub device: String,
    /// The hardware's own name, as its maker writes it.
    pub hardware: String,
    /// How it is used: instruction set, threads, library versions.
    pub detail: String,
    /// How it computes.
    pub arithmetic: Arithmetic,
}

/// Transformer operations on one device.
///
/// A backend is a value (its threads, stream and buffers), never a global, and may be called from several threads at
/// once. Activations are `[rows, cols]`, row-major, one row per real token. An operation that takes its input by value
/// may overwrite it. All operations check their operands: a wrong size is an error, never a panic or a wrong number.
///
/// **A row's result never depends on the other sequences of its batch.** On the CPU backend that holds bit for bit.
/// Backends may compute lazily and fail as late as [`Backend::read`]. A backend may keep spare rows behind the real
/// ones, as long as nothing of them can be seen.
///
/// The meaning of each operation is [`crate::Reference`]; a backend is right when [`crate::conformance`] says so.
pub trait Backend: Send + Sync {
    /// Activations on the device. Dropping one gives its memory back to the backend.
    type Tensor: Shaped + Send;
    /// A linear layer's weights and bias, in the layout and precision its product wants.
    type Matrix: Shaped + Send + Sync;
    /// A normalisation's weights.
    type Norm: Send + Sync;
    /// Rows to look up.
    type Table: Shaped + Send + Sync;
    /// What attention adds to its scores by distance, in the layout its kernel wants.
    type Relative: Send + Sync;
    /// Whatever attention and pooling need to know of one batch, made once per batch.
    type Layout: Send + Sync;

    /// What this runs on.
    fn info(&self) -> DeviceInfo;

    /// Loads stacked linear layers. `rows` of the result are all outputs, `cols` the inputs.
    ///
    /// # Errors
    /// Parts that do not share their inputs, biases of the wrong size, a precision this backend has not.
    fn matrix(&self, source: MatrixSource) -> Result<Self::Matrix>;

    /// Loads a table of `[entries, cols]`.
    ///
    /// # Errors
    /// A tensor that is not two-dimensional.
    fn table(&self, tensor: HostTensor) -> Result<Self::Table>;

    /// Loads a normalisation.
    ///
    /// # Errors
    /// Gain and shift of different sizes, a negative or non-finite epsilon.
    fn norm_weights(&self, source: NormSource) -> Result<Self::Norm>;

    /// Loads a relative term of attention. Its parts are tensors, since they may be results of other operations.
    ///
    /// # Errors
    /// An even number of buckets, a bucket outside a part, no part at all.
    fn relative(&self, source: RelativeSource<Self::Tensor>) -> Result<Self::Relative>;

    /// Prepares a batch.
    ///
    /// # Errors
    /// Only the device's own.
    fn layout(&self, segments: &Segments) -> Result<Self::Layout>;

    /// Brings `values`, `[rows, cols]`, to the device.
    ///
    /// # Errors
    /// A number of values other than `rows * cols`; no rows or no columns.
    fn write(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Self::Tensor>;

    /// Brings a tensor's values to the host, `[rows * cols]`, and waits for them.
    ///
    /// # Errors
    /// The device's own, of any operation the tensor depends on.
    fn read(&self, x: &Self::Tensor) -> Result<Vec<f32>>;

    /// The sum over `lookups` of their rows: `out[r] = Σ table[ids[r]]`, `[rows, cols]`.
    ///
    /// # Errors
    /// No lookup, lookups of different numbers of ids or columns, an id outside its table.
    fn embed(&self, lookups: &[Lookup<'_, Self::Table>]) -> Result<Self::Tensor>;

    /// `activation(x wᵀ + bias)`: `[rows, inputs]` to `[rows, outputs]`.
    ///
    /// # Errors
    /// `x` without the matrix's number of inputs.
    fn linear(&self, x: &Self::Tensor, w: &Self::Matrix, activation: Activation) -> Result<Self::Tensor>;

    /// `activation(left half of a row) * right half`: `[rows, 2 n]` to `[rows, n]`.
    ///
    /// # Errors
    /// An odd number of columns.
    fn gate(&self, x: &Self::Tensor, activation: Activation) -> Result<Self::Tensor>;

    /// Normalises each row of `x + residual`: `norm(x + residual) * gain + shift`, `[rows, cols]`.
    ///
    /// # Errors
    /// Operands of different sizes.
    fn norm(&self, x: Self::Tensor, residual: Option<&Self::Tensor>, n: &Self::Norm) -> Result<Self::Tensor>;

    /// `x + residual`, and that normalised as by [`Backend::norm`]: both `[rows, cols]`, the sum first. For layers
    /// that normalise what they read and add to what they were given.
    ///
    /// # Errors
    /// Operands of different sizes.
    fn add_norm(
        &self,
        x: Self::Tensor,
        residual: &Self::Tensor,
        n: &Self::Norm,
    ) -> Result<(Self::Tensor, Self::Tensor)>;

    /// Turns queries and keys by their position, `[rows, 3 * heads * head_size]`; values stay as they are.
    ///
    /// With `a = position * frequencies[t]`, rounded to f32, and positions counted from 0 in each sequence, columns `t`
    /// and `t + head_size / 2` of each head, `x` and `y`, become `x cos a - y sin a` and `y cos a + x sin a`.
    ///
    /// # Errors
    /// Sizes that do not fit the layout or the heads, an odd head size, a base below 1.
    fn rotate(&self, qkv: Self::Tensor, layout: &Self::Layout, rotation: &Rotation) -> Result<Self::Tensor>;

    /// `softmax(scale q kᵀ + mask) v` per sequence and head: `[rows, 3 * heads * head_size]` to
    /// `[rows, heads * head_size]`. The scores gain what [`RelativeSource`] says where there is a relative term.
    ///
    /// # Errors
    /// Sizes that do not fit the layout or the heads.
    fn attention(
        &self,
        qkv: &Self::Tensor,
        layout: &Self::Layout,
        attention: &Attention,
        relative: Option<&Self::Relative>,
    ) -> Result<Self::Tensor>;

    /// The rows named, in that order: `[indices, cols]`.
    ///
    /// # Errors
    /// No index, or one outside the rows of `x`.
    fn take_rows(&self, x: &Self::Tensor, indices: &[u32]) -> Result<Self::Tensor>;

    /// One row for each sequence: `[rows, cols]` to `[sequences, cols]`.
    ///
    /// # Errors
    /// A number of rows other than the layout's.
    fn reduce_rows(&self, x: &Self::Tensor, layout: &Self::Layout, reduction: Reduction) -> Result<Self::Tensor>;
}
