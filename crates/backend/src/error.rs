//! What can go wrong at the boundary: each variant is one way the world was wrong, with what was expected and found.

use crate::operations::Element;
use crate::{DType, Precision};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error from a backend or from the values given to it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A backend has no implementation of something that was asked of it. It never substitutes something else.
    #[error("backend {backend} does not support {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// The operation, precision or option that is missing.
        what: String,
    },
    /// A backend cannot keep or compute weights in the precision asked for.
    #[error("backend {backend} cannot run in {precision}; it can in {supported}")]
    UnsupportedPrecision {
        /// The backend's name.
        backend: &'static str,
        /// What was asked for.
        precision: Precision,
        /// What it has, as a readable list.
        supported: &'static str,
    },
    /// A weight that the precision asked for cannot hold. It is never made infinite instead.
    #[error("{tensor}: the weight {found:e} at element {at} is outside the range of {precision}: use f32{}", bf16(*.precision))]
    WeightRange {
        /// The tensor's name.
        tensor: String,
        /// The element, counted row by row.
        at: usize,
        /// Its value.
        found: f32,
        /// What was asked for.
        precision: Precision,
    },
    /// An operand's size does not fit the operation.
    #[error("{op}: {what} must be {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which size of which operand.
        what: &'static str,
        /// The size that fits.
        expected: usize,
        /// The size that came.
        found: usize,
    },
    /// An index points outside the table or rows it selects from.
    #[error("{op}: index {index} at position {position} is outside 0..{limit}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The index that came.
        index: i64,
        /// Where in the list of indices it stood.
        position: usize,
        /// How many entries there are to select from.
        limit: usize,
    },
    /// An operand holds integers where floats belong, or floats where integers do.
    #[error("{op}: {what} must hold {expected}, found {found}")]
    Element {
        /// The operation.
        op: &'static str,
        /// Which operand.
        what: &'static str,
        /// What it should hold.
        expected: Element,
        /// What it holds.
        found: Element,
    },
    /// The study has no operation of that name.
    #[error("there is no operation named {name:?}")]
    UnknownOperation {
        /// The name that came.
        name: String,
    },
    /// A batch without a single sequence, or a sequence without a single token.
    #[error("a batch needs at least one sequence of at least one token, found {found}")]
    Empty {
        /// What was empty.
        found: String,
    },
    /// More rows than the 32-bit row numbers of the contract can address.
    #[error("a batch of {rows} tokens is larger than the {limit} one batch can hold")]
    TooManyRows {
        /// Tokens in the batch.
        rows: usize,
        /// The largest number possible.
        limit: usize,
    },
    /// A host tensor's bytes do not fit its shape and element type.
    #[error("a {dtype} tensor of shape {shape:?} needs {expected} bytes, found {found}")]
    Bytes {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<usize>,
        /// Bytes that shape takes.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// A setting is outside what an operation is defined for (an epsilon below zero, a head size of zero ..).
    #[error("{op}: {what}")]
    Setting {
        /// The operation.
        op: &'static str,
        /// What is wrong with it, in words.
        what: String,
    },
    /// The device could not give the memory.
    #[error("{backend}: out of memory, {bytes} bytes were asked for")]
    OutOfMemory {
        /// The backend's name.
        backend: &'static str,
        /// Bytes of the allocation that failed.
        bytes: usize,
    },
    /// The device or its driver failed.
    #[error("{backend}: {message}")]
    Device {
        /// The backend's name.
        backend: &'static str,
        /// What the device or its library said.
        message: String,
    },
}

/// bf16 has the range of f32.
fn bf16(precision: Precision) -> &'static str {
    if precision == Precision::F16 { " or bf16" } else { "" }
}
