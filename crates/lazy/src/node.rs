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

/// What an operation was given from the host.
#[derive(Debug)]
pub(crate) enum Given {
    Ids(Vec<u32>),
    Segments(Segments),
    Values(Vec<f32>, usize),
}

impl Given {
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

/// An operation that was asked for. Its operands are named by their place in `operands`.
pub(crate) struct Node<D: Device> {
    pub(crate) operation: Operation<D, usize, Arc<Given>>,
    pub(crate) operands: Vec<Operand<D>>,
    pub(crate) results: Vec<Outcome<D::Buffer>>,
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

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self { handles: AtomicUsize::new(0), buffer: OnceLock::new() }
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
        let mut left = std::mem::take(&mut self.operands);
        while let Some(operand) = left.pop() {
            if let Some(mut node) = Arc::into_inner(operand.node) {
                left.append(&mut node.operands);
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
        operation: Operation<D, usize, Arc<Given>>,
        operands: Vec<Operand<D>>,
        (rows, cols): (usize, usize),
    ) -> [Self; RESULTS] {
        let results = (0..operation.results()).map(|_| Outcome::default()).collect();
        let node = Arc::new(Node { operation, operands, results, rows, cols });
        std::array::from_fn(|result| {
            node.results[result].handles.fetch_add(1, Ordering::Relaxed);
            Self { operand: Operand { node: Arc::clone(&node), result } }
        })
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
