//! The study's operations on a GPU: `cargo run --release -p mlxt-cuda --example cuda_operations`.
//!
//! `conformance` compares every case of the contract's table with the reference. Otherwise prints for each published case
//! (`published`, or nothing; `encoder`: for each of an encoder's) the best and the median milliseconds of one run, operands and result on the
//! device, and its name, separated by tabs; other arguments are words that a case has to contain. What is timed checks no
//! values. scripts/time-operations-cuda.py puts PyTorch's times beside these.

use std::process::ExitCode;
use std::time::Instant;

use mlxt_backend::operations::{HostArray, Operation, Operations, Settings, conformance};
use mlxt_backend::{Error, Result};
use mlxt_cuda::{CudaDevice, CudaOptions};
use serde_json::Value;

const CASES: &str = include_str!("../../../study/operations.json");

struct Case {
    operation: Operation,
    dims: Vec<Vec<usize>>,
    name: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| words.iter().position(|w| w == name).map(|i| words.remove(i)).is_some();
    let table = flag("conformance");
    let (encoder, _) = (flag("encoder"), flag("published"));
    let set = if encoder { "encoder" } else { "published" };
    let device = CudaDevice::new(&CudaOptions::default())?;
    if table {
        let report = conformance::check(&device);
        println!("{report}");
        return Ok(report.passed() && report.unsupported.is_empty());
    }
    let mut right = true;
    for case in cases(set).into_iter().filter(|case| words.iter().all(|w| case.name.contains(w))) {
        match times(&device, &case) {
            Ok((best, median)) => println!("{best:.4}\t{median:.4}\t{}", case.name),
            Err(error) => {
                println!("failed: {}: {error}", case.name);
                right = false;
            }
        }
    }
    Ok(right)
}

fn cases(set: &str) -> Vec<Case> {
    let table: Value = serde_json::from_str(CASES).unwrap_or_default();
    let all = table["cases"].as_array().into_iter().flatten().filter(|c| c["set"] == set);
    let case = |c: &Value| {
        let heads = c["settings"]["heads"].as_u64().map(|h| h as usize);
        let operation = Operation::new(c["operation"].as_str()?, Settings { axis: c["axis"].as_i64(), heads }).ok()?;
        let dims: Vec<Vec<usize>> = serde_json::from_value(c["dims"].clone()).ok()?;
        let name = format!("{operation} {dims:?}");
        Some(Case { operation, dims, name })
    };
    all.filter_map(case).collect()
}

/// Operands of a case: what a list of edges stands for are two.
fn inputs(case: &Case) -> Result<Vec<HostArray>> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let first = &case.dims[0];
    let mut shapes = case.dims.clone();
    if matches!(case.operation, Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax) {
        shapes.push(shapes[1].clone());
    }
    let mut arrays = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let len: usize = shape.iter().product();
        let array = match (case.operation, i) {
            (Operation::Gather | Operation::Embedding, 1)
            | (Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax, 1 | 2) => {
                HostArray::i32(shape, (0..len).map(|_| (next() % first[0] as u64) as i32).collect())
            }
            (Operation::RaggedAttention(_) | Operation::MeanPoolNormalize, 1) => {
                HostArray::i32(shape, vec![(first[0] / len) as i32; len])
            }
            (Operation::SelfAttention, 3) => HostArray::i32(shape, vec![first[2] as i32; len]),
            (Operation::Bce, 0) => HostArray::f32(shape, (0..len).map(|_| next() as f32 / (1 << 24) as f32).collect()),
            (Operation::Bce, 1) => HostArray::f32(shape, (0..len).map(|_| (next() & 1) as f32).collect()),
            // The sum of two: not flat, though not normal either.
            _ => HostArray::f32(shape, (0..len).map(|_| (next() + next()) as f32 / (1 << 23) as f32 - 2.0).collect()),
        };
        arrays.push(array?);
    }
    Ok(arrays)
}

/// The best and the median run. Of copies between host and device, what is timed is the copy.
fn times(device: &CudaDevice, case: &Case) -> Result<(f64, f64)> {
    let host = inputs(case)?;
    let upload = |(i, x)| device.upload(&case.operation, i, x);
    let arrays = host.iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    let arrays: Vec<_> = arrays.iter().collect();
    let run = || -> Result<f64> {
        let start = Instant::now();
        match case.operation {
            Operation::HostToDevice => device.wait(&device.upload(&case.operation, 0, &host[0])?)?,
            Operation::DeviceToHost => drop(device.download(arrays[0])?),
            _ => device.wait(&Operations::run(device, &case.operation, &arrays)?)?,
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..3 {
        run()?;
    }
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 10 || (begun.elapsed().as_millis() < 60 && times.len() < 1000) {
        times.push(run()?);
    }
    times.sort_by(f64::total_cmp);
    let best = times.first().copied().ok_or(Error::Empty { found: "no run".into() })?;
    Ok((best, times[times.len() / 2]))
}
