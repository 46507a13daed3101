//! The study's operations on a GPU: `cargo run --release -p mlxt-cuda --example cuda_operations`.
//!
//! `conformance` compares every case of the contract's table with the reference. Otherwise prints for each published case
//! (`published`, or nothing; `encoder`: for each of an encoder's) the best and the median milliseconds of one run, operands and result on the
//! device, and its name, separated by tabs; other arguments are words that a case has to contain. What is timed checks no
//! values. scripts/time-operations-cuda.py puts PyTorch's times beside these.

#[path = "../../backend/examples/published/mod.rs"]
mod published;

use std::process::ExitCode;
use std::time::Instant;

use mlxt_backend::operations::{Operation, Operations, conformance};
use mlxt_backend::{Error, Result};
use mlxt_cuda::{CudaDevice, CudaOptions};

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
    for case in published::cases(set) {
        let name = case.name();
        if !words.iter().all(|w| name.contains(w)) {
            continue;
        }
        match times(&device, &case) {
            Ok((best, median)) => println!("{best:.4}\t{median:.4}\t{name}"),
            Err(error) => {
                println!("failed: {name}: {error}");
                right = false;
            }
        }
    }
    Ok(right)
}

/// The best and the median run. Of copies between host and device, what is timed is the copy.
fn times(device: &CudaDevice, case: &published::Case) -> Result<(f64, f64)> {
    let host = case.inputs()?;
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
