//! What a device has to offer so that [`crate::Lazy`] makes a backend of it.

use std::sync::Arc;

use mlxt_backend::{DeviceInfo, HostTensor, MatrixSource, NormSource, RelativeSource, Result, Segments, Shaped};

use crate::plan::{Plan, SegmentsRoom};

/// A device that runs whole plans. Operands have been checked by [`crate::Lazy`]: sizes fit, indices are in range.
///
/// May be called from several threads at once.
pub trait Device: Send + Sync + 'static {
    /// Values that outlive a run, `[room, cols]`. Dropping one gives its memory back.
    type Buffer: Send + Sync;
    /// As [`mlxt_backend::Backend::Matrix`].
    type Matrix: Send + Sync;
    /// As [`mlxt_backend::Backend::Norm`].
    type Norm: Send + Sync;
    /// As [`mlxt_backend::Backend::Table`].
    type Table: Send + Sync;
    /// As [`mlxt_backend::Backend::Relative`].
    type Relative: Send + Sync;
    /// What the device made of a plan.
    type Program: Send + Sync;

    /// What this runs on.
    fn info(&self) -> DeviceInfo;

    /// As [`mlxt_backend::Backend::matrix`].
    ///
    /// # Errors
    /// A precision this device has not; the device's own.
    fn matrix(&self, source: MatrixSource) -> Result<Self::Matrix>;

    /// As [`mlxt_backend::Backend::table`].
    ///
    /// # Errors
    /// The device's own.
    fn table(&self, tensor: HostTensor) -> Result<Self::Table>;

    /// As [`mlxt_backend::Backend::norm_weights`].
    ///
    /// # Errors
    /// The device's own.
    fn norm_weights(&self, source: NormSource) -> Result<Self::Norm>;

    /// As [`mlxt_backend::Backend::relative`].
    ///
    /// # Errors
    /// The device's own.
    fn relative(&self, source: RelativeSource<Held<Self::Buffer>>) -> Result<Self::Relative>;

    /// How many rows to make room for where there are `rows`: at least as many. The fewer different answers, the fewer
    /// programs; the closer, the less is computed for nothing.
    fn room(&self, rows: usize) -> usize;

    /// The same for a batch. Its rows are [`Device::room`]'s.
    fn segments_room(&self, segments: &Segments) -> SegmentsRoom;

    /// Makes a program of a plan, once for all batches that fit it.
    ///
    /// # Errors
    /// The device's own.
    fn compile(&self, plan: Arc<Plan<Self>>) -> Result<Self::Program>;

    /// Runs a program. The outputs come in the plan's order; they may still be on their way.
    ///
    /// # Errors
    /// The device's own.
    fn run(&self, program: &Self::Program, inputs: &[Input<'_, Self::Buffer>]) -> Result<Vec<Self::Buffer>>;

    /// The first `rows` of a buffer of `cols` columns, on the host.
    ///
    /// # Errors
    /// The device's own, of any operation the buffer depends on.
    fn read(&self, buffer: &Self::Buffer, rows: usize, cols: usize) -> Result<Vec<f32>>;
}

/// What one run gives an input of its plan.
#[derive(Debug)]
pub enum Input<'a, T> {
    /// For [`crate::plan::InputKind::Ids`].
    Ids(&'a [u32]),
    /// For [`crate::plan::InputKind::Segments`].
    Segments(&'a Segments),
    /// For [`crate::plan::InputKind::Values`]: as many rows as there are, not as there is room for.
    Values(&'a [f32]),
    /// For [`crate::plan::InputKind::Buffer`]: the buffer and its number of real rows.
    Buffer(&'a T, usize),
}

impl<T> Clone for Input<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Input<'_, T> {}

/// A buffer with the size of what is real in it.
#[derive(Debug)]
pub struct Held<T> {
    /// The values.
    pub buffer: Arc<T>,
    /// Rows that are real.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl<T> Shaped for Held<T> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
}
