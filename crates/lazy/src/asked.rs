//! An operation as it is asked for: its weights are somebody else's. Mostly it is one that has been asked for before, and
//! then nothing has to be kept of it.

use std::sync::Arc;

use mlxt_backend::{Activation, Attention, Reduction, Rotation};

use crate::Device;
use crate::plan::{InputId, Operation, ValueId};

/// An [`Operation`] of weights that are lent: neither their counts nor they themselves are touched.
pub(crate) enum Asked<'a, D: Device> {
    Input(InputId),
    Embed(Vec<(&'a Arc<D::Table>, InputId)>),
    Linear { x: ValueId, w: &'a Arc<D::Matrix>, activation: Activation },
    Gate { x: ValueId, activation: Activation },
    Norm { x: ValueId, residual: Option<ValueId>, n: &'a Arc<D::Norm> },
    AddNorm { x: ValueId, residual: ValueId, n: &'a Arc<D::Norm> },
    Rotate { qkv: ValueId, layout: InputId, rotation: Rotation },
    Attention { qkv: ValueId, layout: InputId, attention: Attention, relative: Option<&'a Arc<D::Relative>> },
    TakeRows { x: ValueId, indices: InputId },
    ReduceRows { x: ValueId, layout: InputId, reduction: Reduction },
}

impl<'a, D: Device> Asked<'a, D> {
    /// A step asked for again, on other operands and inputs.
    pub(crate) fn again(
        step: &'a Operation<D>,
        value: impl Fn(ValueId) -> ValueId,
        mut input: impl FnMut(InputId) -> InputId,
    ) -> Self {
        match *step {
            Operation::Input(i) => Self::Input(input(i)),
            Operation::Embed(ref lookups) => {
                Self::Embed(lookups.iter().map(|(table, ids)| (table, input(*ids))).collect())
            }
            Operation::Linear { x, ref w, activation } => Self::Linear { x: value(x), w, activation },
            Operation::Gate { x, activation } => Self::Gate { x: value(x), activation },
            Operation::Norm { x, residual, ref n } => Self::Norm { x: value(x), residual: residual.map(value), n },
            Operation::AddNorm { x, residual, ref n } => Self::AddNorm { x: value(x), residual: value(residual), n },
            Operation::Rotate { qkv, layout, rotation } => {
                Self::Rotate { qkv: value(qkv), layout: input(layout), rotation }
            }
            Operation::Attention { qkv, layout, attention, ref relative } => {
                Self::Attention { qkv: value(qkv), layout: input(layout), attention, relative: relative.as_ref() }
            }
            Operation::TakeRows { x, indices } => Self::TakeRows { x: value(x), indices: input(indices) },
            Operation::ReduceRows { x, layout, reduction } => {
                Self::ReduceRows { x: value(x), layout: input(layout), reduction }
            }
        }
    }

    /// As something to keep.
    pub(crate) fn kept(&self) -> Operation<D> {
        match *self {
            Self::Input(input) => Operation::Input(input),
            Self::Embed(ref lookups) => {
                Operation::Embed(lookups.iter().map(|&(table, ids)| (Arc::clone(table), ids)).collect())
            }
            Self::Linear { x, w, activation } => Operation::Linear { x, w: Arc::clone(w), activation },
            Self::Gate { x, activation } => Operation::Gate { x, activation },
            Self::Norm { x, residual, n } => Operation::Norm { x, residual, n: Arc::clone(n) },
            Self::AddNorm { x, residual, n } => Operation::AddNorm { x, residual, n: Arc::clone(n) },
            Self::Rotate { qkv, layout, rotation } => Operation::Rotate { qkv, layout, rotation },
            Self::Attention { qkv, layout, attention, relative } => {
                Operation::Attention { qkv, layout, attention, relative: relative.cloned() }
            }
            Self::TakeRows { x, indices } => Operation::TakeRows { x, indices },
            Self::ReduceRows { x, layout, reduction } => Operation::ReduceRows { x, layout, reduction },
        }
    }

    /// Whether a step is the same. Weights count as the same where they are the same object.
    pub(crate) fn is(&self, step: &Operation<D>) -> bool {
        match (self, step) {
            (Self::Input(i), Operation::Input(j)) => i == j,
            (Self::Embed(lookups), Operation::Embed(others)) => {
                let mut pairs = lookups.iter().zip(others);
                lookups.len() == others.len()
                    && pairs.all(|((table, i), (other, j))| Arc::ptr_eq(table, other) && i == j)
            }
            (Self::Linear { x, w, activation }, Operation::Linear { x: y, w: v, activation: other }) => {
                x == y && Arc::ptr_eq(w, v) && activation == other
            }
            (Self::Gate { x, activation }, Operation::Gate { x: y, activation: other }) => {
                x == y && activation == other
            }
            (Self::Norm { x, residual, n }, Operation::Norm { x: y, residual: other, n: m }) => {
                x == y && residual == other && Arc::ptr_eq(n, m)
            }
            (Self::AddNorm { x, residual, n }, Operation::AddNorm { x: y, residual: other, n: m }) => {
                x == y && residual == other && Arc::ptr_eq(n, m)
            }
            (Self::Rotate { qkv, layout, rotation }, Operation::Rotate { qkv: y, layout: j, rotation: other }) => {
                qkv == y && layout == j && rotation == other
            }
            (
                Self::Attention { qkv, layout, attention, relative },
                Operation::Attention { qkv: y, layout: j, attention: other, relative: term },
            ) => {
                // A scale that is not a number is the same as itself, too.
                let Attention { heads, head_size, scale, mask } = *attention;
                (heads, head_size, scale.to_bits(), mask)
                    == (other.heads, other.head_size, other.scale.to_bits(), other.mask)
                    && qkv == y
                    && layout == j
                    && relative.map(Arc::as_ptr) == term.as_ref().map(Arc::as_ptr)
            }
            (Self::TakeRows { x, indices }, Operation::TakeRows { x: y, indices: j }) => x == y && indices == j,
            (
                Self::ReduceRows { x, layout, reduction },
                Operation::ReduceRows { x: y, layout: j, reduction: other },
            ) => x == y && layout == j && reduction == other,
            _ => false,
        }
    }
}
