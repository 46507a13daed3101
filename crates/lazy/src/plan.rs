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
///
/// In a plan, `V` names its operands and `I` its inputs; before there is a plan, they are the things themselves.
pub enum Operation<D: Device + ?Sized, V = ValueId, I = InputId> {
    /// A value is an input as it is: [`InputKind::Values`] or [`InputKind::Buffer`].
    Input(I),
    /// `Σ table[ids]`
    Embed(Vec<(Arc<D::Table>, I)>),
    /// `activation(x wᵀ + bias)`
    Linear {
        /// `[rows, inputs]`
        x: V,
        /// `[outputs, inputs]`
        w: Arc<D::Matrix>,
        /// Applied to the result.
        activation: Activation,
    },
    /// `activation(left) * right`
    Gate {
        /// `[rows, 2 cols]`
        x: V,
        /// Of the left half.
        activation: Activation,
    },
    /// Normalised `x + residual`.
    Norm {
        /// `[rows, cols]`
        x: V,
        /// `[rows, cols]`
        residual: Option<V>,
        /// The weights.
        n: Arc<D::Norm>,
    },
    /// `x + residual`, and that normalised: two results.
    AddNorm {
        /// `[rows, cols]`
        x: V,
        /// `[rows, cols]`
        residual: V,
        /// The weights.
        n: Arc<D::Norm>,
    },
    /// Queries and keys turned by position.
    Rotate {
        /// `[rows, 3 * heads * head_size]`
        qkv: V,
        /// [`InputKind::Segments`]
        layout: I,
        /// The settings.
        rotation: Rotation,
    },
    /// Attention within each sequence.
    Attention {
        /// `[rows, 3 * heads * head_size]`
        qkv: V,
        /// [`InputKind::Segments`]
        layout: I,
        /// The settings.
        attention: Attention,
        /// What scores gain by distance.
        relative: Option<Arc<D::Relative>>,
    },
    /// The rows named.
    TakeRows {
        /// `[rows, cols]`
        x: V,
        /// [`InputKind::Ids`]
        indices: I,
    },
    /// One row for each sequence.
    ReduceRows {
        /// `[rows, cols]`
        x: V,
        /// [`InputKind::Segments`]
        layout: I,
        /// How.
        reduction: Reduction,
    },
}

impl<D: Device + ?Sized, V, I> Operation<D, V, I> {
    /// The same operation on other operands and inputs.
    pub(crate) fn map<W, J>(
        &self,
        mut value: impl FnMut(&V) -> W,
        mut input: impl FnMut(&I) -> J,
    ) -> Operation<D, W, J> {
        match self {
            Self::Input(i) => Operation::Input(input(i)),
            Self::Embed(lookups) => {
                Operation::Embed(lookups.iter().map(|(table, ids)| (Arc::clone(table), input(ids))).collect())
            }
            Self::Linear { x, w, activation } => {
                Operation::Linear { x: value(x), w: Arc::clone(w), activation: *activation }
            }
            Self::Gate { x, activation } => Operation::Gate { x: value(x), activation: *activation },
            Self::Norm { x, residual, n } => {
                Operation::Norm { x: value(x), residual: residual.as_ref().map(value), n: Arc::clone(n) }
            }
            Self::AddNorm { x, residual, n } => {
                Operation::AddNorm { x: value(x), residual: value(residual), n: Arc::clone(n) }
            }
            Self::Rotate { qkv, layout, rotation } => {
                Operation::Rotate { qkv: value(qkv), layout: input(layout), rotation: *rotation }
            }
            Self::Attention { qkv, layout, attention, relative } => Operation::Attention {
                qkv: value(qkv),
                layout: input(layout),
                attention: *attention,
                relative: relative.clone(),
            },
            Self::TakeRows { x, indices } => Operation::TakeRows { x: value(x), indices: input(indices) },
            Self::ReduceRows { x, layout, reduction } => {
                Operation::ReduceRows { x: value(x), layout: input(layout), reduction: *reduction }
            }
        }
    }

    /// Whether this is an operation of a plan, given what its operands and inputs are there. Weights count as the same
    /// where they are the same object.
    pub(crate) fn is(
        &self,
        other: &Operation<D>,
        value: impl Fn(&V) -> ValueId,
        input: impl Fn(&I) -> InputId,
    ) -> bool {
        match (self, other) {
            (Self::Input(i), Operation::Input(j)) => input(i) == *j,
            (Self::Embed(lookups), Operation::Embed(others)) => {
                let mut pairs = lookups.iter().zip(others);
                lookups.len() == others.len()
                    && pairs.all(|((table, ids), (other, j))| Arc::ptr_eq(table, other) && input(ids) == *j)
            }
            (Self::Linear { x, w, activation }, Operation::Linear { x: y, w: v, activation: other }) => {
                value(x) == *y && Arc::ptr_eq(w, v) && activation == other
            }
            (Self::Gate { x, activation }, Operation::Gate { x: y, activation: other }) => {
                value(x) == *y && activation == other
            }
            (Self::Norm { x, residual, n }, Operation::Norm { x: y, residual: other, n: m }) => {
                value(x) == *y && residual.as_ref().map(value) == *other && Arc::ptr_eq(n, m)
            }
            (Self::AddNorm { x, residual, n }, Operation::AddNorm { x: y, residual: other, n: m }) => {
                value(x) == *y && value(residual) == *other && Arc::ptr_eq(n, m)
            }
            (Self::Rotate { qkv, layout, rotation }, Operation::Rotate { qkv: y, layout: j, rotation: other }) => {
                value(qkv) == *y && input(layout) == *j && rotation == other
            }
            (
                Self::Attention { qkv, layout, attention, relative },
                Operation::Attention { qkv: y, layout: j, attention: other, relative: term },
            ) => {
                // A scale that is not a number is the same as itself, too.
                let Attention { heads, head_size, scale, mask } = *attention;
                (heads, head_size, scale.to_bits(), mask)
                    == (other.heads, other.head_size, other.scale.to_bits(), other.mask)
                    && value(qkv) == *y
                    && input(layout) == *j
                    && relative.as_ref().map(Arc::as_ptr) == term.as_ref().map(Arc::as_ptr)
            }
            (Self::TakeRows { x, indices }, Operation::TakeRows { x: y, indices: j }) => {
                value(x) == *y && input(indices) == *j
            }
            (
                Self::ReduceRows { x, layout, reduction },
                Operation::ReduceRows { x: y, layout: j, reduction: other },
            ) => value(x) == *y && input(layout) == *j && reduction == other,
            _ => false,
        }
    }

    /// How many results it has.
    pub(crate) fn results(&self) -> usize {
        if matches!(self, Self::AddNorm { .. }) { 2 } else { 1 }
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
