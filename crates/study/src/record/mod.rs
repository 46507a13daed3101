//! What was measured: the lines of a record file, and nothing derived from them.
//!
//! A file is JSON lines: a [`Run`] for each time `study run` was started, then a [`Row`] for each cell, variant and process, as
//! it was finished. `file.rs` reads them, `writer.rs` adds to them; what they mean together is in `stats/`.

mod file;
mod writer;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use file::Records;
pub(crate) use file::write_new;
pub use writer::Writer;

/// The version of this layout. A reader refuses others.
pub const SCHEMA: u32 = 1;

/// A line of a record file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    /// The circumstances of the rows that follow.
    Run(Run),
    /// One measurement.
    Row(Row),
}

/// One call of `study run`: when, on what, with which engines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Names this run in its rows: unique in a file and over merged files.
    pub id: String,
    /// The plan's name.
    pub plan: String,
    /// When it began, UTC, `2026-11-22T20:15:00Z`.
    pub started: String,
    /// This program's version.
    pub version: String,
    /// The commit this program was built from, where it is known.
    pub commit: Option<String>,
    /// Of everything random: inputs, weights, orders.
    pub seed: u64,
    /// Threads of each engine.
    pub threads: usize,
    /// The machine.
    pub machine: Machine,
    /// What the machine can do, measured by this program just before.
    pub limits: Option<Limits>,
    /// The engines that took part, by peer, mode and device.
    pub peers: BTreeMap<String, PeerInfo>,
    /// SHA-256 of each model's weights, by the model's name.
    pub checkpoints: BTreeMap<String, String>,
}

/// A machine, without anything that tells whose it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// A name for tables and figures: the CPU's and the GPUs' own names.
    pub name: String,
    /// Kernel or system and its version.
    pub system: String,
    /// The CPU's own name.
    pub cpu: String,
    /// Processors that the program may use.
    pub threads: usize,
    /// Bytes.
    pub memory: Option<u64>,
    /// Names of the GPUs, with their memory and driver.
    pub gpus: Vec<String>,
    /// How the system chooses clock rates, where it tells.
    pub governor: Option<String>,
    /// Processes that wanted a processor in the last minute when the run began.
    pub load: Option<f64>,
}

/// The machine's measured limits, on as many threads as the study uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Peak of multiply-adds by dtype, in 10^9 operations per second (a multiply-add is two).
    pub gflops: BTreeMap<String, f64>,
    /// Reading memory, 10^9 bytes per second.
    pub gigabytes_per_second: f64,
}

/// Who a peer said it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerInfo {
    /// As it is written in tables: `PyTorch`.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Libraries below it, threads.
    pub detail: String,
}

/// A measurement, or what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`Run::id`]
    pub run: String,
    /// What was computed.
    pub cell: Cell,
    /// By whom, and how.
    pub variant: Variant,
    /// The how manyth process of this variant, from 0.
    pub process: usize,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What is computed: the same for every engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Names it: `bert-base/100c/b16`, `Softmax/64x1000000/axis=-1`.
    pub id: String,
    /// What it is.
    #[serde(flatten)]
    pub work: Work,
    /// Floating point operations of its products, a multiply-add counted as two; 0 where there are none.
    pub flops: u64,
    /// The least bytes that have to be read and written once, in f32: weights and ids, or inputs and output.
    pub bytes: u64,
}

/// What a cell computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A whole encoder, to its last hidden states.
    Model {
        /// Which: `bert-base`.
        model: String,
        /// How long its texts are.
        length: Length,
        /// Sequences at once.
        batch: usize,
        /// Tokens over all sequences, without padding.
        tokens: usize,
        /// Tokens of the longest sequence.
        longest: usize,
    },
    /// One operation.
    Operation {
        /// `published`, or `encoder`.
        set: String,
        /// Its name in `study/OPERATIONS.md`.
        operation: String,
        /// The operands' shapes as the suite names them.
        dims: Vec<Vec<usize>>,
        /// The axis, for operations that have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        axis: Option<i64>,
    },
}

/// How long texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Texts of exactly so many characters; their tokens differ.
    Characters(usize),
    /// Exactly so many tokens.
    Tokens(usize),
    /// Real sentences of many lengths.
    Ragged,
}

impl Length {
    /// Characters or tokens of each text, where all have the same.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Characters(n) | Self::Tokens(n) => Some(n),
            Self::Ragged => None,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Characters(n) => write!(f, "{n}c"),
            Self::Tokens(n) => write!(f, "{n}t"),
            Self::Ragged => f.write_str("ragged"),
        }
    }
}

/// An engine in one of its ways of working.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Variant {
    /// The peer's name in `peers.toml`.
    pub peer: String,
    /// One of its modes.
    pub mode: String,
    /// Where it runs: `cpu`, `mlx:gpu`, `cuda:0`.
    pub device: String,
    /// What it computes in.
    pub dtype: String,
}

impl Variant {
    /// Whether it computes on the machine's cores, and on nothing else that processes share.
    pub fn is_on_cpu(&self) -> bool {
        matches!(self.device.as_str(), "cpu" | "mlx:cpu")
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, mode, device, dtype } = self;
        write!(f, "{peer}/{mode}/{device}/{dtype}")
    }
}

/// What came of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its values were right, and here are its times.
    Measured(Measured),
    /// It has no times, and here is why.
    Failed(Failure),
}

/// Times, and what they are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Nanoseconds from inputs on the host to the result on the host, by round, all of them in the order measured.
    pub host_ns: Vec<Vec<u64>>,
    /// The device's own time, where the engine can tell.
    pub device_ns: Option<Vec<Vec<u64>>>,
    /// How near the values are to the golden ones.
    pub check: Check,
    /// Seconds to load the checkpoint.
    pub load_seconds: Option<f64>,
    /// The most memory the process has held so far, bytes.
    pub peak_memory: Option<u64>,
    /// Energy over the timed iterations, joules for each: of the GPU for an engine on an NVIDIA GPU, else of the processor
    /// packages; on a Mac of both together. None where nothing tells, or an engine's turns were too short for the meter.
    pub joules: Option<f64>,
    /// What the engine said of how it runs.
    pub detail: String,
}

/// A comparison with the golden result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Whose result: a variant.
    pub golden: String,
    /// The largest difference of two values.
    pub max_abs: f64,
    /// The largest value of the golden result, to see the difference against.
    pub largest: f64,
    /// The least cosine of two rows.
    pub min_cosine: f64,
}

/// Why there are no times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it failed: a stage of `study/PROTOCOL.md`.
    pub stage: String,
    /// What happened.
    pub message: String,
}
