//! Operations as they are noted: each knows its operands, none has run.
//!
//! Whether a value has to outlive a run is read off its handles: a [`Tensor`] is one; operands of other operations are
//! not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mlxt_backend::{Segments, Shaped};

use crate::Device;
use crate::device::Input;
use crate::plan::{InputKind, Operation};

/// What an operation was given from the host. Clones are one and the same input.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Ids(Arc<[u32]>),
    Segments(Segments),
    /// Values and their columns.
    Values(Arc<[f32]>, usize),
}

impl Given {
    /// What tells it from every other input as long as both are there: none is empty.
    pub(crate) fn address(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.as_ptr().addr(),
            Self::Segments(segments) => segments.offsets().as_ptr().addr(),
            Self::Values(values, _) => values.as_ptr().addr(),
        }
    }

    pub(crate) fn kind<D: Device>(&self, device: &D) -> InputKind {
        match self {
            Self::Ids(ids) => InputKind::Ids { room: device.room(ids.len()) },
            Self::Segments(segments) => InputKind::Segments(device.segments_room(segments)),
            Self::Values(values, cols) => InputKind::Values { room: device.room(values.len() / cols), cols: *cols },
        }
    }

    pub(crate) fn input<T>(&self) -> Input<'_, T> {
        match self {
            Self::Ids(ids) => Input::Ids(ids),
            Self::Segments(segments) => Input::Segments(segments),
            Self::Values(values, _) => Input::Values(values),
        }
    }
}

/// The most operands an operation has, and the most results.
pub(crate) const MOST: usize = 2;

/// An operation that was asked for. Its operands are named by their place in `operands`.
///
/// A forward notes dozens of them while the device waits: each is one allocation.
pub(crate) struct Node<D: Device> {
    pub(crate) operation: Operation<D, usize, Given>,
    pub(crate) operands: [Option<Operand<D>>; MOST],
    /// The first ones are those the operation has.
    pub(crate) results: [Outcome<D::Buffer>; MOST],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// A result of a node, as another one refers to it.
pub(crate) struct Operand<D: Device> {
    pub(crate) node: Arc<Node<D>>,
    pub(crate) result: usize,
}

/// What is known of one result.
pub(crate) struct Outcome<T> {
    /// How many [`Tensor`]s there are of it.
    handles: AtomicUsize,
    /// The values, once it was computed as an output.
    pub(crate) buffer: OnceLock<Arc<T>>,
}

impl<T> Outcome<T> {
    pub(crate) fn is_wanted(&self) -> bool {
        self.handles.load(Ordering::Relaxed) > 0 && self.buffer.get().is_none()
    }
}

impl<D: Device> Node<D> {
    /// The results there are.
    pub(crate) fn outcomes(&self) -> &[Outcome<D::Buffer>] {
        &self.results[..self.operation.results()]
    }
}

impl<D: Device> Operand<D> {
    pub(crate) fn outcome(&self) -> &Outcome<D::Buffer> {
        &self.node.results[self.result]
    }
}

impl<D: Device> Clone for Operand<D> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), result: self.result }
    }
}

/// A long row of nodes is let go one after the other: each within the drop of the next would take stack without bound.
impl<D: Device> Drop for Node<D> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        left.extend(self.operands.iter_mut().filter_map(Option::take));
        while let Some(operand) = left.pop() {
            if let Some(mut node) = Arc::into_inner(operand.node) {
                left.extend(node.operands.iter_mut().filter_map(Option::take));
            }
        }
    }
}

/// Activations that may still have to be computed, `[rows, cols]`.
pub struct Tensor<D: Device> {
    operand: Operand<D>,
}

impl<D: Device> Tensor<D> {
    /// The results of an operation of `operands` that gives `[rows, cols]`.
    pub(crate) fn note<const RESULTS: usize>(
        operation: Operation<D, usize, Given>,
        operands: [Option<&Self>; MOST],
        (rows, cols): (usize, usize),
    ) -> [Self; RESULTS] {
        debug_assert_eq!(operation.results(), RESULTS);
        let operands = operands.map(|x| x.map(|x| x.operand.clone()));
        let handled =
            |result| Outcome { handles: AtomicUsize::new(usize::from(result < RESULTS)), buffer: OnceLock::new() };
        let node = Arc::new(Node { operation, operands, results: std::array::from_fn(handled), rows, cols });
        std::array::from_fn(|result| Self { operand: Operand { node: Arc::clone(&node), result } })
    }

    pub(crate) fn operand(&self) -> &Operand<D> {
        &self.operand
    }
}

impl<D: Device> Drop for Tensor<D> {
    fn drop(&mut self) {
        self.operand.outcome().handles.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: Device> Shaped for Tensor<D> {
    fn rows(&self) -> usize {
        self.operand.node.rows
    }
    fn cols(&self) -> usize {
        self.operand.node.cols
    }
}
