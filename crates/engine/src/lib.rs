//! Transformer inference from Hugging Face checkpoints, run as they are, on the fastest backend a machine has.
//!
//! ```no_run
//! use mlx_transformers::SentenceTransformer;
//!
//! let model = SentenceTransformer::from_pretrained("sentence-transformers/all-MiniLM-L6-v2")?;
//! let embeddings = model.encode(&["A cat sits on the mat.", "Un chat est assis sur le tapis."])?;
//! println!("{:.3}", embeddings.similarity(0, 1));
//! # Ok::<(), mlx_transformers::Error>(())
//! ```
//!
//! [`SentenceTransformer`] makes sentence embeddings, [`AutoModel`] hidden states, [`AutoTokenizer`] tokens.
//! [`FillMask`], [`TextClassifier`], [`ZeroShotClassifier`], [`Reranker`], [`TokenClassifier`] and [`QuestionAnswerer`]
//! give the answers of models with such heads, as Hugging Face pipelines do. Each has `from_pretrained(name)` and a
//! [`Builder`] with options; `name` is a folder or a hub id. All are `Send + Sync`: load once, call from any thread.
//! Answers do not depend on what else is in a call or a batch.
//!
//! Nothing falls back silently: a device or precision that was asked for and is not there is an [`Error`], and [`Info`]
//! says what really ran. The library prints nothing; [`Builder::progress`] tells of downloads.
//!
//! Where next: `pipeline.rs` for the way from texts to batches, `session.rs` for where the backend's type ends,
//! `device.rs` for the devices, `hub/` for where models come from.
#![forbid(unsafe_code)]

mod bare;
mod batcher;
mod bundled;
mod checksum;
mod describe;
mod device;
mod error;
mod event;
mod hub;
mod json;
mod limits;
mod model;
mod modules;
mod options;
mod parallel;
mod pipeline;
mod sentence;
mod session;
mod tasks;
mod text;

pub use bare::{OperationDevice, open_operations, open_session};
pub use bundled::{Attempt, Attempts, PackageError, pretrained_demo};
pub use describe::Description;
pub use device::{Device, DeviceReport, Unavailable, devices, mlx_folder};
pub use error::{Error, Result};
pub use event::Event;
pub use hub::{Hub, HubError, ModelFolder, Origin};
pub use mlxt_backend::operations;
pub use mlxt_backend::{DeviceInfo, Precision, Segments, TokenBatch};
pub use mlxt_cpu::MOST_THREADS;
pub use mlxt_cpu::limits::{Limits, limits};
pub use mlxt_models::{
    Config, Inspection, Packed, Packing, Pooling, Role, Task, TensorInfo, Weights, inspect, is_table, tasks_of,
};
pub use model::{AutoModel, Features};
pub use options::{Builder, DEFAULT_BATCH_TOKENS, Load};
pub use sentence::{
    Dense, Elementwise, Embeddings, LayerNorm, SentenceConfig, SentenceTransformer, Step, cosine_similarity,
};
pub use session::{HiddenStates, Info, Rows, Session};
pub use tasks::{
    Aggregation, Answer, Entity, FillMask, Guess, QuestionAnswerer, Ranked, Reranker, Scored, TextClassifier,
    TokenClassifier, ZeroShotClassifier,
};
pub use text::{AutoTokenizer, Encoding, SentencePieceError};
