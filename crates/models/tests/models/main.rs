//! The crate against the fixtures of this repository: what `transformers` computes, and what must be refused.
#![allow(clippy::unwrap_used, clippy::panic)] // the helpers of tests are not #[test] functions

mod bad_checkpoints;
mod fixtures;
mod golden;
mod halves;
mod lengths;
mod quantised;
mod torch_files;
