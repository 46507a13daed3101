//! What a device is asked to run: steps in order, over values that are numbered as they appear.
//!
//! A plan has no numbers of tokens in it, only the room to make for them: batches whose sizes round up to the same room
//! share one plan, and what a device made of it.

use std::sync::Arc;

use mlxt_backend::{Activation, Attention, Reduction, Rotation};

use crate::Device;

/// A value of a plan: an index into [`Plan::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// An input of a plan: an index into [`Plan::inputs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InputId(pub usize);

/// What differs from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// Entries of a table or rows of a value, all within range. Spare ones are to be taken as 0.
    Ids {
        /// The most there can be.
        room: usize,
    },
    /// Where each sequence lies.
    Segments(SegmentsRoom),
    /// Values from the host, `[rows, cols]`.
    Values {
        /// The most rows there can be.
        room: usize,
        /// Columns.
        cols: usize,
    },
    /// A result of an earlier plan, `[rows, cols]`.
    Buffer {
        /// The most rows there can be.
        room: usize,
        /// Columns.
        cols: usize,
    },
}

/// Sizes of a batch, rounded up as the device likes them ([`Device::segments_room`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentsRoom {
    /// The most rows.
    pub rows: usize,
    /// The most sequences.
    pub sequences: usize,
    /// The most rows of one sequence.
    pub longest: usize,
}

/// Which number of a run says how many rows of a value are real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// The ids of [`InputKind::Ids`], the rows of the other kinds.
    Of(InputId),
    /// The sequences of [`InputKind::Segments`].
    SequencesOf(InputId),
}

/// The size of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value {
    /// How many rows are real in a run.
    pub rows: Rows,
    /// The most rows there can be. Nothing may be read of those behind the real ones.
    pub room: usize,
    /// Columns.
    pub cols: usize,
}

/// One operation of [`mlxt_backend::Backend`], whose documentation says what it computes. Operands were checked.
pub enum Operation<D: Device + ?Sized> {
    /// A value is an input as it is: [`InputKind::Values`] or [`InputKind::Buffer`].
    Input(InputId),
    /// `Σ table[ids]`
    Embed(Vec<(Arc<D::Table>, InputId)>),
    /// `activation(x wᵀ + bias)`
    Linear {
        /// `[rows, inputs]`
        x: ValueId,
        /// `[outputs, inputs]`
        w: Arc<D::Matrix>,
        /// Applied to the result.
        activation: Activation,
    },
    /// `activation(left) * right`
    Gate {
        /// `[rows, 2 cols]`
        x: ValueId,
        /// Of the left half.
        activation: Activation,
    },
    /// Normalised `x + residual`.
    Norm {
        /// `[rows, cols]`
        x: ValueId,
        /// `[rows, cols]`
        residual: Option<ValueId>,
        /// The weights.
        n: Arc<D::Norm>,
    },
    /// `x + residual`, and that normalised: two results.
    AddNorm {
        /// `[rows, cols]`
        x: ValueId,
        /// `[rows, cols]`
        residual: ValueId,
        /// The weights.
        n: Arc<D::Norm>,
    },
    /// Queries and keys turned by position.
    Rotate {
        /// `[rows, 3 * heads * head_size]`
        qkv: ValueId,
        /// [`InputKind::Segments`]
        layout: InputId,
        /// The settings.
        rotation: Rotation,
    },
    /// Attention within each sequence.
    Attention {
        /// `[rows, 3 * heads * head_size]`
        qkv: ValueId,
        /// [`InputKind::Segments`]
        layout: InputId,
        /// The settings.
        attention: Attention,
        /// What scores gain by distance.
        relative: Option<Arc<D::Relative>>,
    },
    /// The rows named.
    TakeRows {
        /// `[rows, cols]`
        x: ValueId,
        /// [`InputKind::Ids`]
        indices: InputId,
    },
    /// One row for each sequence.
    ReduceRows {
        /// `[rows, cols]`
        x: ValueId,
        /// [`InputKind::Segments`]
        layout: InputId,
        /// How.
        reduction: Reduction,
    },
}

impl<D: Device + ?Sized> Operation<D> {
    /// How many results it has.
    pub(crate) fn results(&self) -> usize {
        if matches!(self, Self::AddNorm { .. }) { 2 } else { 1 }
    }

    /// The values it is computed from.
    pub(crate) fn operands(&self) -> impl Iterator<Item = ValueId> {
        let operands = match *self {
            Self::Input(_) | Self::Embed(_) => [None, None],
            Self::Norm { x, residual, .. } => [Some(x), residual],
            Self::AddNorm { x, residual, .. } => [Some(x), Some(residual)],
            Self::Linear { x, .. }
            | Self::Gate { x, .. }
            | Self::Rotate { qkv: x, .. }
            | Self::Attention { qkv: x, .. }
            | Self::TakeRows { x, .. }
            | Self::ReduceRows { x, .. } => [Some(x), None],
        };
        operands.into_iter().flatten()
    }

    /// Which number of a run says how many rows of its results are real, from what says it of its operands.
    pub(crate) fn rows(&self, of: impl Fn(ValueId) -> Rows) -> Rows {
        match *self {
            Self::Input(input) | Self::TakeRows { indices: input, .. } => Rows::Of(input),
            Self::Embed(ref lookups) => Rows::Of(lookups.first().map_or(InputId(0), |&(_, ids)| ids)),
            Self::ReduceRows { layout, .. } => Rows::SequencesOf(layout),
            Self::Linear { x, .. }
            | Self::Gate { x, .. }
            | Self::Norm { x, .. }
            | Self::AddNorm { x, .. }
            | Self::Rotate { qkv: x, .. }
            | Self::Attention { qkv: x, .. } => of(x),
        }
    }
}

/// An operation and where its results go.
pub struct Step<D: Device + ?Sized> {
    /// What is computed.
    pub operation: Operation<D>,
    /// Its first result; [`Operation::AddNorm`] has a second one, whose number follows.
    pub result: ValueId,
}

/// Steps in an order in which they can run.
pub struct Plan<D: Device + ?Sized> {
    /// What differs from run to run.
    pub inputs: Vec<InputKind>,
    /// What is computed.
    pub steps: Vec<Step<D>>,
    /// The size of every result, by its number.
    pub values: Vec<Value>,
    /// The values that outlive the run. All others are free once their last step has run.
    pub outputs: Vec<ValueId>,
}
