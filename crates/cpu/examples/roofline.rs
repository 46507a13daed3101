//! How near the kernels come to what the machine can do: `cargo run --release -p mlxt-cpu --example roofline`.
//!
//! Prints the measured peak of fused multiply-adds and of reading memory, then the linear layers of BERT-base and whole
//! encoder stacks with random weights, each next to the limit that follows from those two. It checks no values: the
//! tests and the conformance table do. Optional arguments: the instruction set, the number of threads, `precisions` for
//! only the comparison of the ways to keep weights, one of these ways (`int8`) for only its layers, and a batch (`4x122`, of
//! that many tokens each, or `ragged`, the study's 64 sentences) for one forward of BERT-base in it (f32 without), again
//! and again for two seconds: for a profiler.

use std::time::Instant;

use mlxt_backend::{
    Activation, Arithmetic, Attention, Backend, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind,
    NormSource, Precision, Result, Segments,
};
use mlxt_cpu::limits::{Limits, limits};
use mlxt_cpu::{Cpu, CpuOptions, Isa, Matrix, Norm, Table};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isa = Isa::ALL.into_iter().find(|isa| arguments.iter().any(|a| a.eq_ignore_ascii_case(isa.name())));
    let threads = arguments.iter().find_map(|a| a.parse().ok());
    let precision = arguments.iter().find_map(|a| a.parse::<Precision>().ok());
    let arithmetic = precision.filter(|_| isa.is_none()).map_or(Arithmetic::F32, Cpu::arithmetic);
    let cpu = Cpu::new(CpuOptions { threads, isa, arithmetic })?;
    let info = cpu.info();
    println!("{}: {}", info.hardware, info.detail);

    let limits = limits(cpu.threads())?;
    let (gflops, bandwidth) = (limits.f32_gflops(), limits.gigabytes_per_second);
    println!("limits: {gflops:.0} GFLOP/s of multiply-adds, {bandwidth:.1} GB/s read from memory\n");
    let batch = arguments.iter().find_map(|a| {
        if a == "ragged" {
            return Some(RAGGED.to_vec());
        }
        let (batch, tokens) = a.split_once('x')?;
        Some(vec![tokens.parse::<usize>().ok()?; batch.parse().ok()?])
    });
    if let Some(lengths) = batch {
        return forward(&cpu, precision.unwrap_or_default(), &lengths);
    }
    if let Some(precision) = precision {
        return linear_layers(&cpu, precision, &limits);
    }
    if !arguments.iter().any(|a| a == "precisions") {
        linear_layers(&cpu, Precision::F32, &limits)?;
        for model in [BERT_BASE, MINILM] {
            forwards(&cpu, &model, &limits)?;
        }
    }
    precisions((threads, isa), &BERT_BASE)
}

/// Tokens of the 64 real sentences of the study's plan `ragged`, as BERT's tokenizer cuts them.
const RAGGED: [usize; 64] = [
    48, 61, 58, 52, 13, 17, 65, 8, 30, 15, 21, 29, 10, 18, 23, 8, 38, 44, 18, 28, 99, 27, 5, 42, 15, 14, 21, 50, 12,
    13, 25, 46, 33, 39, 70, 16, 20, 9, 11, 37, 29, 26, 14, 19, 25, 105, 74, 35, 41, 16, 34, 31, 22, 91, 11, 7, 32, 55,
    82, 6, 10, 24, 19, 23,
];

/// The fastest and the median of the times of a few runs, in milliseconds.
fn time(mut run: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    run()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || (start.elapsed().as_secs_f64() < 0.4 && times.len() < 1000) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[0], times[times.len() / 2]))
}

fn noise(len: usize, scale: f32) -> Vec<f32> {
    let mut state = len as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(|_| next()).collect()
}

fn matrix(cpu: &Cpu, outputs: usize, inputs: usize, precision: Precision) -> Result<Matrix> {
    let weight = HostTensor::from_f32(&[outputs, inputs], &noise(outputs * inputs, 0.05))?;
    let bias = Some(HostTensor::from_f32(&[outputs], &noise(outputs, 0.1))?);
    cpu.matrix(MatrixSource::new(vec![LinearPart { weight: weight.into(), bias }], precision))
}

/// The products of BERT-base, with enough matrices of each that they come from memory as they do in a model.
fn linear_layers(cpu: &Cpu, precision: Precision, limits: &Limits) -> Result<()> {
    let dtype = match precision {
        Precision::Int8 | Precision::Q4 => "int8".to_owned(),
        _ => cpu.info().arithmetic.to_string(),
    };
    let gflops = limits.peak(&dtype).unwrap_or_else(|| limits.f32_gflops());
    let bits = match precision {
        Precision::F32 | Precision::Tf32 => 32,
        Precision::Bf16 | Precision::F16 => 16,
        Precision::Int8 | Precision::Fp8 => 8,
        Precision::Q4 => 4,
    };
    println!("outputs x inputs  rows   best ms  median ms  GFLOP/s  of the limit");
    for (outputs, inputs) in [(768, 768), (2304, 768), (3072, 768), (768, 3072)] {
        let bytes = outputs * inputs * bits / 8;
        let matrices = (0..(128 << 20) / bytes).map(|_| matrix(cpu, outputs, inputs, precision));
        let matrices = matrices.collect::<Result<Vec<_>>>()?;
        for rows in [1, 14, 50, 122, 448, 1952] {
            let x = cpu.write(rows, inputs, &noise(rows * inputs, 1.0))?;
            let mut next = matrices.iter().cycle();
            let (best, median) = time(|| {
                let Some(w) = next.next() else { return Ok(()) };
                cpu.linear(&x, w, Activation::Identity).map(drop)
            })?;
            let flops = (2 * rows * outputs * inputs) as f64;
            println!(
                "{outputs:>7} x {inputs:<6}  {rows:>4}  {best:>8.3}  {median:>9.3}  {:>7.1}  {:>5.1} %",
                flops / median / 1e6,
                100.0 * limits.milliseconds(flops, gflops, bytes as f64) / median
            );
        }
    }
    Ok(())
}

/// The sizes of an encoder.
struct Sizes {
    name: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
}

const BERT_BASE: Sizes = Sizes { name: "BERT-base", layers: 12, hidden: 768, heads: 12 };
const MINILM: Sizes = Sizes { name: "MiniLM-L6", layers: 6, hidden: 384, heads: 12 };

/// One layer's weights.
struct Layer {
    qkv: Matrix,
    out: Matrix,
    norm1: Norm,
    up: Matrix,
    down: Matrix,
    norm2: Norm,
}

struct Encoder<'a> {
    cpu: &'a Cpu,
    sizes: &'a Sizes,
    words: Table,
    layers: Vec<Layer>,
}

impl<'a> Encoder<'a> {
    fn new(cpu: &'a Cpu, sizes: &'a Sizes, precision: Precision) -> Result<Self> {
        let matrix = |outputs, inputs| matrix(cpu, outputs, inputs, precision);
        let h = sizes.hidden;
        let norm = || -> Result<Norm> {
            let gain = HostTensor::from_f32(&[h], &vec![1.0; h])?;
            cpu.norm_weights(NormSource { kind: NormKind::LayerNorm, gain, shift: None, eps: 1e-12 })
        };
        let layer = || -> Result<Layer> {
            Ok(Layer {
                qkv: matrix(3 * h, h)?,
                out: matrix(h, h)?,
                norm1: norm()?,
                up: matrix(4 * h, h)?,
                down: matrix(h, 4 * h)?,
                norm2: norm()?,
            })
        };
        let layers = (0..sizes.layers).map(|_| layer()).collect::<Result<_>>()?;
        let words = cpu.table(HostTensor::from_f32(&[1000, h], &noise(1000 * h, 1.0))?)?;
        Ok(Self { cpu, sizes, words, layers })
    }

    /// Host to host: ids in, hidden states out.
    fn forward(&self, lengths: &[usize]) -> Result<Vec<f32>> {
        let (cpu, heads) = (self.cpu, self.sizes.heads);
        let segments = Segments::from_lengths(lengths)?;
        let layout = cpu.layout(&segments)?;
        let head_size = self.sizes.hidden / heads;
        let attention = Attention { heads, head_size, scale: 1.0 / (head_size as f32).sqrt(), mask: Mask::Full };
        let ids: Vec<u32> = (0..segments.rows() as u32).map(|i| i * 37 % 1000).collect();
        let mut x = cpu.embed(&[Lookup { table: &self.words, ids: &ids }])?;
        for layer in &self.layers {
            let qkv = cpu.linear(&x, &layer.qkv, Activation::Identity)?;
            let y = cpu.linear(&cpu.attention(&qkv, &layout, &attention, None)?, &layer.out, Activation::Identity)?;
            x = cpu.norm(y, Some(&x), &layer.norm1)?;
            let up = cpu.linear(&x, &layer.up, Activation::Gelu)?;
            x = cpu.norm(cpu.linear(&up, &layer.down, Activation::Identity)?, Some(&x), &layer.norm2)?;
        }
        cpu.read(&x)
    }
}

fn forwards(cpu: &Cpu, sizes: &Sizes, limits: &Limits) -> Result<()> {
    let start = Instant::now();
    let encoder = Encoder::new(cpu, sizes, Precision::F32)?;
    println!("\n{} (made in {:.0} ms)", sizes.name, start.elapsed().as_secs_f64() * 1e3);
    println!("batch x tokens   best ms  median ms  of the limit");
    for (batch, tokens) in [(1, 14), (1, 26), (1, 50), (1, 122), (16, 26), (16, 50), (16, 122)] {
        let lengths = vec![tokens; batch];
        let (best, median) = time(|| encoder.forward(&lengths).map(drop))?;
        let weights = (sizes.layers * 12 * sizes.hidden * sizes.hidden) as f64;
        let products = weights + (sizes.layers * 2 * tokens * sizes.hidden) as f64;
        let limit = limits.milliseconds(2.0 * (batch * tokens) as f64 * products, limits.f32_gflops(), 4.0 * weights);
        println!("{batch:>5} x {tokens:<6}  {best:>8.2}  {median:>9.2}  {:>5.1} %", 100.0 * limit / median);
    }
    Ok(())
}

/// One forward, again and again.
fn forward(cpu: &Cpu, precision: Precision, lengths: &[usize]) -> Result<()> {
    let encoder = Encoder::new(cpu, &BERT_BASE, precision)?;
    let mut medians = Vec::new();
    let begun = Instant::now();
    while begun.elapsed().as_secs() < 2 {
        medians.push(time(|| encoder.forward(lengths).map(drop))?);
    }
    medians.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (best, median) = (medians.iter().map(|m| m.0).fold(f64::INFINITY, f64::min), medians[medians.len() / 2].1);
    println!("{} {} sequences, {precision}: best {best:.2} ms, median {median:.2} ms", BERT_BASE.name, lengths.len());
    Ok(())
}

/// How weights of each precision compare with f32, interleaved.
fn precisions((threads, isa): (Option<usize>, Option<Isa>), sizes: &Sizes) -> Result<()> {
    const ROUNDS: usize = 5;
    const PRECISIONS: [Precision; 5] =
        [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Q4];
    let cpus = PRECISIONS.map(|precision| {
        // An instruction set that was asked for is f32's.
        let arithmetic = if isa.is_some() { Arithmetic::F32 } else { Cpu::arithmetic(precision) };
        Cpu::new(CpuOptions { threads, isa, arithmetic })
    });
    let cpus = cpus.into_iter().collect::<Result<Vec<_>>>()?;
    let encoders = cpus.iter().zip(PRECISIONS).map(|(cpu, precision)| Encoder::new(cpu, sizes, precision));
    let encoders = encoders.collect::<Result<Vec<_>>>()?;
    println!("\n{}: ms, median (best); times as fast as f32, of the medians", sizes.name);
    let names = PRECISIONS.map(|precision| format!("{:>22}", precision.name()));
    println!("batch x tokens{}", names.concat());
    for (batch, tokens) in [(1, 1), (1, 14), (1, 50), (1, 122), (16, 50)] {
        let lengths = vec![tokens; batch];
        let mut times = [const { Vec::new() }; PRECISIONS.len()];
        for _ in 0..ROUNDS {
            for (encoder, times) in encoders.iter().zip(&mut times) {
                times.push(time(|| encoder.forward(&lengths).map(drop))?);
            }
        }
        let summaries = times.map(|mut rounds| {
            rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
            (rounds[ROUNDS / 2].1, rounds.iter().map(|r| r.0).fold(f64::INFINITY, f64::min))
        });
        let shown = summaries.map(|(median, best)| {
            format!("{:>22}", format!("{median:.2} ({best:.2}) {:.2}x", summaries[0].0 / median))
        });
        println!("{batch:>5} x {tokens:<6}{}", shown.concat());
    }
    Ok(())
}
