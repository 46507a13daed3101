//! The study: operations and models, on any machine, over any engine, with every value checked before its time counts.
//!
//! It is neutral: it links no engine. Each engine, ours too, is a worker process behind one line protocol
//! (`study/PROTOCOL.md`), so none is nearer to the clock than another.
//!
//! Two flows. **Plan to records**: a [`plan`] names cells and the variants that run them; [`runner`] starts workers,
//! compares what they return with a golden result, times them interleaved, and appends each row to [`record`]s as it is
//! measured. **Records to answers**: everything that is printed or drawn is a function of records alone.
#![forbid(unsafe_code)]

pub mod compare;
pub mod error;
pub mod figures;
mod hex;
pub mod machine;
pub mod merge;
pub mod models;
pub mod number;
pub mod operations;
pub mod peers;
pub mod plan;
pub mod protocol;
pub mod random;
pub mod record;
pub mod report;
pub mod runner;
pub mod setup;
pub mod stats;
pub mod summary;
pub mod tables;
pub mod worker;

pub use error::{Error, Result};
