//! The contract between models and the hardware they run on.
//!
//! Models are written once, over [`Backend`]: a handful of coarse operations on ragged batches. This crate holds that
//! trait, the values that cross it, [`Reference`] (plain loops with f64 sums: the specification every backend is held
//! to) and [`conformance`] (one table of cases that any backend runs with one line, as checks and as timings).
//!
//! It is not a tensor library: there are no views, no broadcasting and no graph. Activations are always
//! `[rows, cols]`, one row per real token, sequences end to end; [`Segments`] says where each sequence lies.
//!
//! The operations that the study compares engines by are a second, separate contract: [`operations`].
//!
//! Where next: [`backend`] for the operations, [`operands`] for what they take, `reference.rs` for what they mean.
#![deny(unsafe_code)] // one exception, with its reason, in convert.rs

pub mod backend;
pub mod check;
pub mod conformance;
pub mod convert;
pub mod error;
pub mod host;
pub mod operands;
pub mod operations;
pub mod pieces;
pub mod quantised;
pub mod reference;
pub mod segments;

pub use backend::{Backend, DeviceInfo, Shaped};
pub use error::{Error, Result};
pub use host::{DType, HostTensor};
pub use operands::{
    Activation, Arithmetic, Attention, LinearPart, LinearWeight, Lookup, Mask, MatrixSource, NormKind, NormSource,
    Precision, Reduction, RelativeShape, RelativeSource, Rotation,
};
pub use quantised::{Quantised, Scales, Scheme};
pub use reference::Reference;
pub use segments::{Segments, TokenBatch};
