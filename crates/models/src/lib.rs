//! Transformer encoders, written once over the contract of [`mlxt_backend`].
//!
//! A folder as Hugging Face `transformers` writes it becomes a [`Config`] (`config.json`, every setting honoured or
//! refused by name) and [`Weights`] (mapped files); an [`Encoder`] puts them on any backend and turns token ids
//! into hidden states; [`pool`] makes sentence embeddings of those, a [`Head`] the logits of a [`Task`]. [`inspect()`]
//! describes a folder without loading it.
//!
//! It holds no text processing and knows no device: tokens come in as ids, and everything runs through
//! [`mlxt_backend::Backend`].
//!
//! ```
//! use mlxt_backend::{Backend, Precision, Reference, TokenBatch};
//! use mlxt_models::{Config, Encoder, Pooling, Weights, pool};
//!
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/bert");
//! let config = Config::open(folder)?;
//! let encoder = Encoder::load(&Reference, &config, &Weights::open(folder)?, Precision::F32)?;
//! let batch = TokenBatch::from_sequences(&[vec![2, 40, 41, 3], vec![2, 42, 3]])?;
//! let hidden = encoder.forward(&Reference, &batch)?;
//! let embeddings = Reference.read(&pool(&Reference, &hidden, Pooling::Mean)?)?; // [sequences, hidden]
//! assert_eq!(embeddings.len(), 2 * config.hidden_size());
//! # Ok::<(), mlxt_models::Error>(())
//! ```
//!
//! Where next: `arch/` for what tells one architecture from another, `layers/` for what they share, `encoder.rs` for
//! the forward pass, `tasks/` for what is made of its result.
#![deny(unsafe_code)] // one exception, with its reason, in weights/file.rs

mod arch;
mod config;
mod encoder;
mod error;
mod inspect;
mod layers;
mod tasks;
mod weights;

pub use config::{Config, Quantisation};
pub use encoder::{Encoder, Hidden};
pub use error::{Error, Result};
pub use inspect::{Inspection, inspect};
pub use tasks::embed::{Pooling, pool};
pub use tasks::head::Head;
pub use tasks::labels::Problem;
pub use tasks::{Task, tasks_of};
pub use weights::{
    Misfit, Misshapen, NamedShape, Packed, Packing, Role, TensorInfo, TorchError, Untyped, Weights, is_table,
};
