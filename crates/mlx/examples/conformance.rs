//! MLX on this machine: the contract's tables, then forwards of BERT-base's shape with random weights.
//!
//! `conformance [cpu|gpu] [eager] [in-f16|in-bf16] [check] [each] [I/N] [operations] [times] [f32|f16|bf16|int8|q4 ..]`; without any of
//! check, operations and times, all of them; without a type of weights, all of those. With `each`, every case of check is named
//! before it runs. With `I/N`, check takes part I of N: a GPU's kernels are compiled as cases ask for them, one after the other, up
//! to half a minute each, and several processes do so at once. A wrong value ends the program with status 1. The variable
//! `MLX_DIR` names the MLX to use.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlxt_backend::conformance::random::Random;
use mlxt_backend::{
    Activation, Arithmetic, Attention, Backend, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind,
    NormSource, Precision, Result, Scheme, Segments, conformance, operations,
};
use mlxt_mlx::{Kind, Mlx, MlxOptions, PRECISIONS, open};

const LAYERS: usize = 12;
const HIDDEN: usize = 768;
const HEADS: usize = 12;
/// Cases of the table between two lines of output.
const AT_ONCE: usize = 60;
/// For each timing.
const BUDGET: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| arguments.iter().any(|a| a == name);
    let Some((part, parts)) = part_of(&arguments) else {
        eprintln!("a part is I/N: 1/4 to 4/4");
        return ExitCode::FAILURE;
    };
    let some = PRECISIONS.iter().any(|precision| given(precision.name()));
    let wanted = |precision: &Precision| !some || given(precision.name());
    let all = !["check", "operations", "times"].into_iter().any(given);
    let kind = if given("gpu") { Kind::Gpu } else { Kind::Cpu };
    let arithmetic = [Arithmetic::F16, Arithmetic::Bf16].into_iter().find(|a| given(&format!("in-{a}")));
    let arithmetic = arithmetic.unwrap_or_default();
    let compile = given("eager").then_some(false);
    let mlx = match open(MlxOptions { kind, arithmetic, compile, ..MlxOptions::default() }) {
        Ok(mlx) => mlx,
        Err(error) => {
            eprintln!("{error}; {}", error.advice());
            return ExitCode::FAILURE;
        }
    };
    let info = mlx.info();
    println!("{} on {}: {}, activations in {}", info.device, info.hardware, info.detail, info.arithmetic);
    let (mut right, began) = (true, Instant::now());
    if all || given("check") {
        let mut shares = Shares::default();
        for precision in PRECISIONS {
            let asked = |case: &conformance::Case| precision == Precision::F32 || is_linear(case);
            let mine = |case: &conformance::Case| shares.part(case, precision, parts) == part - 1;
            let cases: Vec<_> = conformance::cases().into_iter().filter(asked).filter(mine).collect();
            // A share is the same whatever else is asked for.
            if !wanted(&precision) {
                continue;
            }
            // A GPU takes minutes, most of them to compile: what is done is said meanwhile.
            for cases in cases.chunks(if given("each") { 1 } else { AT_ONCE }) {
                if given("each") {
                    println!("{:?}", cases[0]);
                }
                let report = conformance::check_cases(&mlx, precision, cases.to_vec());
                right &= report.passed();
                println!("{:5.0} s  {precision}: {report}", began.elapsed().as_secs_f64());
            }
        }
    }
    if all || given("operations") {
        let report = operations::conformance::check(&mlx);
        right &= report.passed() && report.unsupported.is_empty();
        println!("operations: {report}");
    }
    if all || given("times") {
        for precision in PRECISIONS.into_iter().filter(wanted) {
            if let Err(error) = times(&mlx, precision) {
                println!("{precision}: {error}");
                right = false;
            }
        }
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which part of how many is asked for; nothing if it is none.
fn part_of(arguments: &[String]) -> Option<(usize, usize)> {
    let Some((part, parts)) = arguments.iter().find_map(|a| a.split_once('/')) else { return Some((1, 1)) };
    let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
    (1..=parts).contains(&part).then_some((part, parts))
}

/// Which part a case is in. Of packed weights, all that ask for the same kernel are in one: half a minute goes into each on a GPU.
#[derive(Default)]
struct Shares {
    others: usize,
    kernels: Vec<[usize; 4]>,
}

impl Shares {
    fn part(&mut self, case: &conformance::Case, precision: Precision, parts: usize) -> usize {
        let Some(kernel) = kernel(case, precision) else {
            self.others += 1;
            return self.others % parts;
        };
        let known = self.kernels.iter().position(|&known| known == kernel);
        known.unwrap_or_else(|| {
            self.kernels.push(kernel);
            self.kernels.len() - 1
        }) % parts
    }
}

/// What MLX chooses a kernel for packed weights by: bits, values a scale, type of scale, and the rows of a tile.
fn kernel(case: &conformance::Case, precision: Precision) -> Option<[usize; 4]> {
    let (rows, bits, group, kind) = match (&case.operation, precision) {
        (&conformance::Operation::PackedLinear { rows, scheme, .. }, _) => {
            (rows, scheme.bits(), scheme.group(), usize::from(!matches!(scheme, Scheme::Affine { .. })))
        }
        (&conformance::Operation::Linear { rows, .. }, Precision::Int8) => (rows, 8, 64, 0),
        (&conformance::Operation::Linear { rows, .. }, Precision::Q4) => (rows, 4, 64, 0),
        _ => return None,
    };
    let tile = if rows <= 8 { 0 } else { rows.next_power_of_two().clamp(16, 64) };
    Some([bits, group, kind, tile])
}

/// What weights are rounded or packed for.
fn is_linear(case: &conformance::Case) -> bool {
    matches!(case.operation, conformance::Operation::Linear { .. } | conformance::Operation::PackedLinear { .. })
}

fn times(mlx: &Mlx, precision: Precision) -> Result<()> {
    let bert = Bert::new(mlx, precision)?;
    let ragged: Vec<usize> = (0..32).map(|i| 20 + i * 7 % 103).collect();
    let small = [vec![14], vec![122], vec![14; 16]];
    let large = [vec![122; 32], ragged, vec![512; 8]];
    let on_gpu = mlx.info().device == "mlx:gpu";
    for lengths in small.into_iter().chain(large.into_iter().filter(|_| on_gpu)) {
        let segments = Segments::from_lengths(&lengths)?;
        let run = || -> Result<Duration> {
            let started = Instant::now();
            bert.forward(mlx, &segments)?;
            Ok(started.elapsed())
        };
        let first = run()?;
        let (began, mut samples) = (Instant::now(), Vec::new());
        while samples.len() < 5 || (began.elapsed() < BUDGET && samples.len() < 300) {
            samples.push(run()?);
        }
        samples.sort_unstable();
        let milliseconds = |d: Duration| d.as_secs_f64() * 1e3;
        let (median, least) = (milliseconds(samples[samples.len() / 2]), milliseconds(samples[0]));
        let (rows, count) = (segments.rows(), segments.count());
        println!(
            "{precision} {count:>3} sequences, {rows:>5} rows: median {median:>8.3} ms, least {least:>8.3}, first {:>8.1}",
            milliseconds(first)
        );
    }
    println!("{:?}", mlx.device().memory()?);
    Ok(())
}

struct Layer {
    qkv: <Mlx as Backend>::Matrix,
    out: <Mlx as Backend>::Matrix,
    up: <Mlx as Backend>::Matrix,
    down: <Mlx as Backend>::Matrix,
    norms: [<Mlx as Backend>::Norm; 2],
}

struct Bert {
    words: <Mlx as Backend>::Table,
    norm: <Mlx as Backend>::Norm,
    layers: Vec<Layer>,
}

impl Bert {
    fn new(mlx: &Mlx, precision: Precision) -> Result<Self> {
        let mut random = Random::new(1);
        let mut matrix = |outputs: usize, inputs: usize| {
            let weight = HostTensor::from_f32(&[outputs, inputs], &random.normals(outputs * inputs, 0.02))?.into();
            let bias = Some(HostTensor::from_f32(&[outputs], &random.normals(outputs, 0.02))?);
            mlx.matrix(MatrixSource::new(vec![LinearPart { weight, bias }], precision))
        };
        let norm = || {
            let part = |value: f32| HostTensor::from_f32(&[HIDDEN], &[value; HIDDEN]);
            let (gain, shift) = (part(1.0)?, Some(part(0.0)?));
            mlx.norm_weights(NormSource { kind: NormKind::LayerNorm, gain, shift, eps: 1e-12 })
        };
        let layers = (0..LAYERS).map(|_| {
            Ok(Layer {
                qkv: matrix(3 * HIDDEN, HIDDEN)?,
                out: matrix(HIDDEN, HIDDEN)?,
                up: matrix(4 * HIDDEN, HIDDEN)?,
                down: matrix(HIDDEN, 4 * HIDDEN)?,
                norms: [norm()?, norm()?],
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        let words = HostTensor::from_f32(&[1000, HIDDEN], &Random::new(2).normals(1000 * HIDDEN, 1.0))?;
        Ok(Self { words: mlx.table(words)?, norm: norm()?, layers })
    }

    /// From ids on the host to the first row of each sequence on the host.
    fn forward(&self, mlx: &Mlx, segments: &Segments) -> Result<Vec<f32>> {
        let ids: Vec<u32> = (0..segments.rows() as u32).map(|i| i * 7 % 1000).collect();
        let layout = mlx.layout(segments)?;
        let head_size = HIDDEN / HEADS;
        let attention = Attention { heads: HEADS, head_size, scale: 0.125, mask: Mask::Full };
        let mut x = mlx.norm(mlx.embed(&[Lookup { table: &self.words, ids: &ids }])?, None, &self.norm)?;
        for layer in &self.layers {
            let qkv = mlx.linear(&x, &layer.qkv, Activation::Identity)?;
            let seen = mlx.attention(&qkv, &layout, &attention, None)?;
            let y = mlx.norm(mlx.linear(&seen, &layer.out, Activation::Identity)?, Some(&x), &layer.norms[0])?;
            let up = mlx.linear(&y, &layer.up, Activation::Gelu)?;
            x = mlx.norm(mlx.linear(&up, &layer.down, Activation::Identity)?, Some(&y), &layer.norms[1])?;
        }
        let firsts: Vec<u32> = segments.ranges().map(|range| range.start as u32).collect();
        mlx.read(&mlx.take_rows(&x, &firsts)?)
    }
}
