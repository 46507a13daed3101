//! What is said between the runner and a worker: `study/PROTOCOL.md` as types. How a worker is started and kept in time
//! is in `worker.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::record::Limits;

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;

/// One line to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Who is this?
    Hello,
    /// Load a checkpoint.
    Load {
        /// Its folder.
        model: PathBuf,
        /// How to run it.
        #[serde(flatten)]
        setting: Setting,
    },
    /// Get ready for operations, without a checkpoint.
    Open {
        /// How to run them.
        #[serde(flatten)]
        setting: Setting,
    },
    /// What the next runs compute on.
    Batch {
        /// Token ids of each sequence.
        ids: Vec<Vec<u32>>,
    },
    /// The operation that the next runs compute.
    Operation(OperationRequest),
    /// Compute, and take the time of each iteration.
    Run {
        /// How many times.
        iterations: usize,
    },
    /// Compute once more and write the result to a file.
    Output {
        /// Where to.
        file: PathBuf,
    },
    /// Measure the machine.
    Probe {
        /// On how many threads.
        threads: usize,
    },
}

/// How a worker runs what it loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `cpu`, `mlx:gpu`, `cuda:0` ..
    pub device: String,
    /// `f32`, `bf16` ..
    pub dtype: String,
    /// One of the peer's modes.
    pub mode: String,
    /// Threads of the host that compute.
    pub threads: usize,
}

/// An operation with its operands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationRequest {
    /// Its name in `study/OPERATIONS.md`.
    pub operation: String,
    /// The axis, for operations that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<i64>,
    /// What else it needs to know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, u64>,
    /// The operands.
    pub inputs: Vec<Operand>,
    /// What has to come out.
    pub output: Shape,
}

/// An array in a file: little-endian values, row-major.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operand {
    /// Where it is.
    pub file: PathBuf,
    /// What it is.
    #[serde(flatten)]
    pub shape: Shape,
}

/// The shape and the type of an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// `f32` or `i32`.
    pub dtype: String,
}

/// A result that was written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What the file holds.
    #[serde(flatten)]
    pub shape: Shape,
    /// What computing it took, without writing.
    #[serde(default)]
    pub host_ns: Option<u64>,
}

impl Shape {
    /// An array of 32-bit floats.
    pub fn f32(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dtype: "f32".into() }
    }

    /// An array of 32-bit integers.
    pub fn i32(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dtype: "i32".into() }
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One line from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply<T> {
    /// It was done.
    Ok(T),
    /// It was not.
    Error(Fault),
}

/// What a worker could not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where it failed.
    pub stage: String,
    /// What happened.
    pub message: String,
    /// Whether the worker cannot go on.
    #[serde(default)]
    pub fatal: bool,
}

/// The answer to [`Request::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`]
    pub protocol: u32,
    /// The engine's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Libraries below it, threads.
    #[serde(default)]
    pub detail: String,
}

/// The answer to [`Request::Load`] and [`Request::Open`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// How long it took.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// What really runs.
    #[serde(default)]
    pub detail: String,
}

/// The answer to requests that only prepare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {}

/// The answer to [`Request::Run`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Nanoseconds from host to host, for each iteration.
    pub host_ns: Vec<u64>,
    /// The device's own time, where the engine can tell.
    #[serde(default)]
    pub device_ns: Option<Vec<u64>>,
    /// Energy of the device for each iteration, joules, where the engine can tell.
    #[serde(default)]
    pub joules: Option<f64>,
}

/// The answer to [`Request::Probe`].
pub type Probe = Limits;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn same(request: &Request, said: serde_json::Value) {
        assert_eq!(serde_json::to_value(request).unwrap(), said);
        assert_eq!(&serde_json::from_value::<Request>(said).unwrap(), request);
    }

    #[test]
    fn requests_are_as_the_page_says() {
        let setting = Setting { device: "cpu".into(), dtype: "f32".into(), mode: "eager".into(), threads: 2 };
        same(&Request::Hello, json!({"do": "hello"}));
        same(
            &Request::Load { model: "/m".into(), setting: setting.clone() },
            json!({"do": "load", "model": "/m", "device": "cpu", "dtype": "f32", "mode": "eager", "threads": 2}),
        );
        same(
            &Request::Open { setting },
            json!({"do": "open", "device": "cpu", "dtype": "f32", "mode": "eager", "threads": 2}),
        );
        same(&Request::Batch { ids: vec![vec![101, 102]] }, json!({"do": "batch", "ids": [[101, 102]]}));
        same(&Request::Run { iterations: 3 }, json!({"do": "run", "iterations": 3}));
        same(&Request::Output { file: "/y".into() }, json!({"do": "output", "file": "/y"}));
        let operation = OperationRequest {
            operation: "Softmax".into(),
            axis: Some(-1),
            settings: BTreeMap::new(),
            inputs: vec![Operand { file: "/x".into(), shape: Shape::f32(&[64, 16]) }],
            output: Shape::f32(&[64, 16]),
        };
        same(
            &Request::Operation(operation),
            json!({"do": "operation", "operation": "Softmax", "axis": -1,
                   "inputs": [{"file": "/x", "shape": [64, 16], "dtype": "f32"}],
                   "output": {"shape": [64, 16], "dtype": "f32"}}),
        );
    }

    #[test]
    fn replies_are_as_the_page_says() {
        let times: Reply<Times> = serde_json::from_str(r#"{"ok": {"host_ns": [5, 6], "device_ns": null}}"#).unwrap();
        assert_eq!(times, Reply::Ok(Times { host_ns: vec![5, 6], device_ns: None, joules: None }));
        let fault: Reply<Times> = serde_json::from_str(r#"{"error": {"stage": "run", "message": "no"}}"#).unwrap();
        assert_eq!(fault, Reply::Error(Fault { stage: "run".into(), message: "no".into(), fatal: false }));
        assert!(serde_json::from_str::<Reply<Times>>(r#"{"ok": {"host_ns": [-1]}}"#).is_err());
    }
}
