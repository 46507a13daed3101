//! The study's operations on this CPU, next to the machine's limits: `cargo run --release -p mlxt-cpu --example operations`.
//!
//! Prints, for each published case, the time of one run (operands and result in memory), what it comes to in GFLOP/s or
//! GB/s, and the share of the limit that follows from the measured peaks: of multiply-adds for products and
//! convolutions, of copying (or reading) memory for all else. It checks no values: the conformance table does.
//! Arguments: words that a case has to contain (`Sum`, `[64, 1000000]`), a number of threads, an instruction set;
//! `--encoder` for the encoder's cases, `--plain` for tab-separated milliseconds only.

#[path = "../../backend/examples/published/mod.rs"]
mod published;

use std::hint::black_box;
use std::time::Instant;

use mlxt_backend::operations::shapes::{Axis, Convolution, Product};
use mlxt_backend::operations::{Operation, Operations};
use mlxt_backend::{Backend, Result};
use mlxt_cpu::limits::limits;
use mlxt_cpu::{Cpu, CpuOptions, Isa};

fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| words.iter().position(|w| w == name).map(|i| words.remove(i)).is_some();
    let (plain, set) = (flag("--plain"), if flag("--encoder") { "encoder" } else { "published" });
    let threads = words.iter().position(|w| w.parse::<usize>().is_ok()).and_then(|i| words.remove(i).parse().ok());
    let isa = Isa::ALL.into_iter().find(|isa| {
        let at = words.iter().position(|w| w.eq_ignore_ascii_case(isa.name()));
        at.map(|i| words.remove(i)).is_some()
    });
    let options = CpuOptions { threads, isa, ..CpuOptions::default() };
    let cpu = Cpu::new(options)?;
    let limits = if plain {
        [f64::INFINITY; 3]
    } else {
        println!("{}: {}", cpu.info().hardware, cpu.info().detail);
        let measured = limits(cpu.threads())?;
        let (fma, read, copy) = (measured.f32_gflops(), measured.gigabytes_per_second, copy_peak(cpu.threads()));
        println!("limits: {fma:.0} GFLOP/s of multiply-adds, {read:.1} GB/s read, {copy:.1} GB/s copied");
        println!("   best ms  median ms    rate          of the limit  case");
        [fma, read, copy]
    };
    for case in published::cases(set) {
        let name = case.name();
        if words.iter().all(|w| name.contains(w)) {
            // A fresh one: the memory of the largest cases goes back to the system.
            report(&Cpu::new(options)?, &case, &name, limits, plain)?;
        }
    }
    Ok(())
}

fn report(cpu: &Cpu, case: &published::Case, name: &str, [fma, read, copy]: [f64; 3], plain: bool) -> Result<()> {
    let host = case.inputs()?;
    let arrays = host.iter().enumerate().map(|(i, x)| cpu.upload(&case.operation, i, x)).collect::<Result<Vec<_>>>()?;
    drop(host);
    let arrays: Vec<_> = arrays.iter().collect();
    let run = || -> Result<f64> {
        let start = Instant::now();
        let out = cpu.run(&case.operation, &arrays)?;
        cpu.wait(&out)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..2 {
        if let Err(error) = run() {
            println!("{name}: {error}");
            return Ok(());
        }
    }
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || (begun.elapsed().as_millis() < 300 && times.len() < 1000) {
        times.push(run()?);
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    if plain {
        println!("{best}\t{median}\t{name}");
        return Ok(());
    }
    let (flops, bytes) = (flops(case), bytes(case));
    let reduces =
        matches!(case.operation, Operation::Sum(_) | Operation::SumAll | Operation::Argmax(_) | Operation::Bce);
    let memory = bytes / if reduces { read } else { copy };
    let limit = (flops / fma).max(memory) / 1e6;
    let rate = if flops / fma > memory {
        format!("{:>7.1} GFLOP/s", flops / best / 1e6)
    } else {
        format!("{:>7.1} GB/s   ", bytes / best / 1e6)
    };
    println!("{best:>10.3} {median:>10.3}  {rate}  {:>6.1} %      {name}", 100.0 * limit / best);
    Ok(())
}

/// Operations of the products of a case, a multiply-add counted as two.
fn flops(case: &published::Case) -> f64 {
    let dims = &case.dims;
    let count = match case.operation {
        Operation::MatMul | Operation::Linear | Operation::LinearGelu | Operation::PackedQkv => {
            let p = Product::new(&dims[0], &dims[1]);
            2 * p.batch * p.rows * p.inner * p.cols
        }
        Operation::Conv1d | Operation::Conv2d => {
            let c = Convolution::new(&dims[0], &dims[1]);
            2 * c.count * c.output()[0] * c.output()[1] * dims[1].iter().product::<usize>()
        }
        Operation::ScaledDotProductAttention => {
            let [b, h, q, d] = [0, 1, 2, 3].map(|i| dims[0][i]);
            4 * b * h * d * (0..q).map(|i| (i + 1).min(dims[1][2])).sum::<usize>()
        }
        _ => 0,
    };
    count as f64
}

/// Bytes that have to be read and written: each operand once (of keys those that are seen, of scattered rows none but
/// the first time), and the result.
fn bytes(case: &published::Case) -> f64 {
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let all: usize = case.dims.iter().map(|d| size(d)).sum();
    let values = match case.operation {
        Operation::Sum(axis) | Operation::Argmax(axis) => {
            all + Axis::new(&case.operation, axis, &case.dims[0]).map_or(0, |a| a.outer * a.inner)
        }
        Operation::SumAll | Operation::Bce => all,
        Operation::Concat(_) => 2 * all,
        Operation::Gather | Operation::Embedding => case.dims[1][0] * (1 + case.dims[0][1]),
        Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => {
            2 * size(&case.dims[0]) + 2 * case.dims[1][0]
        }
        Operation::ScaledDotProductAttention => 4 * size(&case.dims[0]),
        Operation::MatMul | Operation::Linear => {
            let p = Product::new(&case.dims[0], &case.dims[1]);
            all + p.batch * p.rows * p.cols
        }
        Operation::Conv1d | Operation::Conv2d => {
            let c = Convolution::new(&case.dims[0], &case.dims[1]);
            all + c.count * c.output()[0] * c.output()[1] * c.outputs
        }
        _ => all + size(&case.dims[0]),
    };
    4.0 * values as f64
}

/// GB/s of copying 512 MB, what is read and what is written both counted.
fn copy_peak(threads: usize) -> f64 {
    let (from, mut to) = (vec![1_u64; 64 << 20], vec![2_u64; 64 << 20]);
    let share = from.len() / threads;
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        std::thread::scope(|s| {
            for (from, to) in from.chunks_exact(share).zip(to.chunks_exact_mut(share)) {
                s.spawn(move || to.copy_from_slice(from));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    black_box(&to);
    (2 * share * threads * 8) as f64 / best / 1e9
}
