//! The contract's table on this CPU, as timings: `cargo run --release -p mlxt-cpu --example conformance`.
//!
//! Every case's values are compared with the reference before its time counts; a wrong one ends the program with
//! status 1. Optional arguments: the instruction set, the number of threads. `roofline` sets times against the
//! machine's limits.

use std::process::ExitCode;
use std::time::Duration;

use mlxt_backend::{Backend, Precision, conformance};
use mlxt_cpu::{Cpu, CpuOptions, Isa};

/// For each case.
const BUDGET: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isa = Isa::ALL.into_iter().find(|isa| arguments.iter().any(|a| a.eq_ignore_ascii_case(isa.name())));
    let threads = arguments.iter().find_map(|a| a.parse().ok());
    let cpu = match Cpu::new(CpuOptions { threads, isa, ..CpuOptions::default() }) {
        Ok(cpu) => cpu,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let info = cpu.info();
    println!("{}: {}", info.hardware, info.detail);
    let (report, timings) = conformance::time(&cpu, Precision::F32, BUDGET);
    println!("{:>12} {:>8} {:>9}  case", "median us", "samples", "GFLOP/s");
    for timing in &timings {
        let seconds = timing.median().as_secs_f64();
        let rate = match timing.flops {
            0 => String::new(),
            flops => format!("{:.1}", flops as f64 / seconds / 1e9),
        };
        println!("{:>12.1} {:>8} {rate:>9}  {}", seconds * 1e6, timing.samples.len(), timing.case);
    }
    println!("{report}");
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
