//! A backend for devices on which starting work costs more than some of the work: operations are noted as they come, and
//! run as one program when somebody asks for values.
//!
//! A model calls the same operations in the same order for every batch. [`Lazy`] recognises what it has seen, operation by
//! operation: the device makes a program of it once ([`Device::compile`]: a CUDA graph, a compiled MLX function) and runs
//! that from then on with the new batch's ids. Sizes are rounded up, so that batches of nearly the same size share a program.
//!
//! It is not a compiler: operations are neither fused nor reordered here; a device may, in what it makes of a [`Plan`].
//!
//! Where next: `plan.rs` for what a device is given, `device.rs` for what it has to offer, `recording.rs` for how operations
//! are noted, `trace.rs` for how they become a plan, `examples/host.rs` for how long that takes.
#![forbid(unsafe_code)]

mod asked;
mod backend;
pub mod device;
pub mod plan;
mod programs;
mod recording;
mod script;
#[cfg(test)]
mod tests;
mod trace;

pub use backend::{Lazy, Relative, Weights};
pub use device::{Device, Held, Input};
pub use plan::Plan;
pub use recording::Tensor;
