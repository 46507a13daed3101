//! The study's operations on this CPU, next to the machine's limits: `cargo run --release -p mlxt-cpu --example operations`.
//!
//! Prints, for each published case, the time of one run (operands and result in memory), what it comes to in GFLOP/s or
//! GB/s, and the share of the limit that follows from the measured peaks: of multiply-adds for products and
//! convolutions, of copying (or reading) memory for all else. It checks no values: the conformance table does.
//! Arguments: words that a case has to contain (`Sum`, `[64, 1000000]`), a number of threads, an instruction set;
//! `--encoder` for the encoder's cases, `--plain` for tab-separated milliseconds only.

use std::hint::black_box;
use std::time::Instant;

use mlxt_backend::operations::shapes::{Axis, Convolution, Product};
use mlxt_backend::operations::{HostArray, Operation, Operations, Settings};
use mlxt_backend::{Backend, Result};
use mlxt_cpu::limits::limits;
use mlxt_cpu::{Cpu, CpuOptions, Isa};
use serde_json::Value;

const CASES: &str = include_str!("../../../study/operations.json");

struct Case {
    operation: Operation,
    dims: Vec<Vec<usize>>,
}

fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| words.iter().position(|w| w == name).map(|i| words.remove(i)).is_some();
    let (plain, set) = (flag("--plain"), if flag("--encoder") { "encoder" } else { "published" });
    let threads = words.iter().position(|w| w.parse::<usize>().is_ok()).and_then(|i| words.remove(i).parse().ok());
    let isa = Isa::ALL.into_iter().find(|isa| {
        let at = words.iter().position(|w| w.eq_ignore_ascii_case(isa.name()));
        at.map(|i| words.remove(i)).is_some()
    });
    let options = CpuOptions { threads, isa };
    let cpu = Cpu::new(options)?;
    let limits = if plain {
        [f64::INFINITY; 3]
    } else {
        println!("{}: {}", cpu.info().hardware, cpu.info().detail);
        let measured = limits(cpu.threads());
        let (fma, read, copy) = (measured.f32_gflops(), measured.gigabytes_per_second, copy_peak(cpu.threads()));
        println!("limits: {fma:.0} GFLOP/s of multiply-adds, {read:.1} GB/s read, {copy:.1} GB/s copied");
        println!("   best ms  median ms    rate          of the limit  case");
        [fma, read, copy]
    };
    for case in cases(set) {
        let name = format!("{} {:?}", case.operation, case.dims);
        if words.iter().all(|w| name.contains(w)) {
            // A fresh one: the memory of the largest cases goes back to the system.
            report(&Cpu::new(options)?, &case, &name, limits, plain)?;
        }
    }
    Ok(())
}

fn cases(set: &str) -> Vec<Case> {
    let table: Value = serde_json::from_str(CASES).unwrap_or_default();
    let all = table["cases"].as_array().into_iter().flatten().filter(|c| c["set"] == set);
    let case = |c: &Value| {
        let heads = c["settings"]["heads"].as_u64().map(|h| h as usize);
        let operation = Operation::new(c["operation"].as_str()?, Settings { axis: c["axis"].as_i64(), heads }).ok()?;
        let dims = c["dims"].as_array()?.iter();
        let dims: Vec<Vec<usize>> = dims
            .map(|d| d.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|n| n as usize).collect())
            .collect();
        Some(Case { operation, dims })
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

fn report(cpu: &Cpu, case: &Case, name: &str, [fma, read, copy]: [f64; 3], plain: bool) -> Result<()> {
    let host = inputs(case)?;
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
fn flops(case: &Case) -> f64 {
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
fn bytes(case: &Case) -> f64 {
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
