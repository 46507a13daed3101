//! Runs one case on one backend: operands made and brought to the device once, then the operation alone.

use std::time::{Duration, Instant};

use half::{bf16, f16};

use super::cases::{Case, Operation, RelativeTerm};
use super::random::Random;
use crate::{
    Activation, Attention, Backend, DType, HostTensor, LinearPart, LinearWeight, Lookup, MatrixSource, NormKind,
    NormSource, Precision, Quantised, Reduction, RelativeSource, Result, Rotation, Scales, Scheme, Segments,
};

/// A case with its operands on a backend.
pub(super) struct Prepared<'a, B: Backend> {
    backend: &'a B,
    operands: Operands<B>,
}

enum Operands<B: Backend> {
    Linear { x: B::Tensor, w: B::Matrix, activation: Activation },
    Norm { rows: usize, cols: usize, x: Vec<f32>, residual: Option<B::Tensor>, n: B::Norm },
    AddNorm { rows: usize, cols: usize, x: Vec<f32>, residual: B::Tensor, n: B::Norm },
    NormedLinear { x: B::Tensor, w: B::Matrix, residual: Option<B::Tensor>, n: B::Norm, sum: bool },
    NormedLayers { x: B::Tensor, w: [B::Matrix; 4], residual: B::Tensor, n: [B::Norm; 2], sum: bool },
    Gate { x: B::Tensor, activation: Activation },
    Rotate { rows: usize, cols: usize, qkv: Vec<f32>, layout: B::Layout, rotation: Rotation },
    Attention { qkv: B::Tensor, layout: B::Layout, attention: Attention, relative: Option<B::Relative> },
    Embed { tables: Vec<B::Table>, ids: Vec<Vec<u32>> },
    TakeRows { x: B::Tensor, indices: Vec<u32> },
    ReduceRows { x: B::Tensor, layout: B::Layout, reduction: Reduction },
}

/// Makes a case's operands, all but the weights of products and norms rounded to `kept`. They depend on the case and on
/// that alone, so that every backend gets the same.
pub(super) fn prepare<'a, B: Backend>(
    backend: &'a B,
    case: &Case,
    precision: Precision,
    kept: DType,
) -> Result<Prepared<'a, B>> {
    let random = &mut Random::new(case.to_string().bytes().fold(7, |h, b| h * 31 % 1_000_003 + u64::from(b)));
    let values = |random: &mut Random, count: usize| rounded(random.normals(count, 1.0), kept);
    let normal =
        |random: &mut Random, rows: usize, cols: usize| backend.write(rows, cols, &values(random, rows * cols));
    let operands = match &case.operation {
        Operation::Linear { rows, inputs, outputs, bias, activation, stored } => {
            let weights = |random: &mut Random, outputs| {
                tensor(random, &[outputs, *inputs], 1.0 / (*inputs as f32).sqrt(), *stored).map(Into::into)
            };
            let w = backend.matrix(joined(random, outputs, (*bias, *stored, precision), weights)?)?;
            Operands::Linear { x: normal(random, *rows, *inputs)?, w, activation: *activation }
        }
        Operation::PackedLinear { rows, inputs, outputs, scheme, stored } => {
            let weights =
                |random: &mut Random, outputs| packed(random, [outputs, *inputs], *scheme, *stored).map(Into::into);
            let w = backend.matrix(joined(random, outputs, (true, *stored, precision), weights)?)?;
            Operands::Linear { x: normal(random, *rows, *inputs)?, w, activation: Activation::Identity }
        }
        Operation::Norm { rows, cols, kind, residual, shift, eps, offset } => {
            let gain = tensor(random, &[*cols], 1.0, DType::F32)?;
            let shift = shift.then(|| tensor(random, &[*cols], 1.0, DType::F32)).transpose()?;
            let n = backend.norm_weights(NormSource { kind: *kind, gain, shift, eps: *eps })?;
            let residual = residual.then(|| normal(random, *rows, *cols)).transpose()?;
            let x = rounded(random.normals(rows * cols, 1.0).iter().map(|v| v + offset).collect(), kept);
            Operands::Norm { rows: *rows, cols: *cols, x, residual, n }
        }
        Operation::AddNorm { rows, cols, kind } => {
            let gain = tensor(random, &[*cols], 1.0, DType::F32)?;
            let n = backend.norm_weights(NormSource { kind: *kind, gain, shift: None, eps: 1e-5 })?;
            let (x, residual) = (values(random, rows * cols), normal(random, *rows, *cols)?);
            Operands::AddNorm { rows: *rows, cols: *cols, x, residual, n }
        }
        Operation::NormedLinear { rows, inputs, cols, kind, residual, sum } => {
            let (w, n) = (plain(random, *cols, *inputs, precision)?, with_gain(random, *kind, *cols)?);
            Operands::NormedLinear {
                x: normal(random, *rows, *inputs)?,
                w: backend.matrix(w)?,
                residual: residual.then(|| normal(random, *rows, *cols)).transpose()?,
                n: backend.norm_weights(n)?,
                sum: *sum,
            }
        }
        Operation::NormedLayers { rows, inputs, cols, wide, kind, sum } => {
            let sizes = [(*cols, *inputs), (*wide, *cols), (*cols, *wide), (*cols, *cols)];
            Operands::NormedLayers {
                w: matrices(backend, random, sizes, precision)?,
                n: norms(backend, random, *kind, *cols)?,
                x: normal(random, *rows, *inputs)?,
                residual: normal(random, *rows, *cols)?,
                sum: *sum,
            }
        }
        Operation::Gate { rows, cols, activation } => {
            Operands::Gate { x: normal(random, *rows, 2 * cols)?, activation: *activation }
        }
        Operation::Rotate { lengths, heads, head_size, theta } => {
            let segments = Segments::from_lengths(lengths)?;
            let (rows, cols) = (segments.rows(), 3 * heads * head_size);
            let rotation = Rotation { heads: *heads, head_size: *head_size, theta: *theta };
            let qkv = values(random, rows * cols);
            Operands::Rotate { rows, cols, qkv, layout: backend.layout(&segments)?, rotation }
        }
        Operation::Attention { lengths, heads, head_size, mask, spread, relative } => {
            let segments = Segments::from_lengths(lengths)?;
            let hidden = heads * head_size;
            let mut values = random.normals(segments.rows() * 3 * hidden, 1.0);
            for row in values.chunks_exact_mut(3 * hidden) {
                row[..2 * hidden].iter_mut().for_each(|v| *v *= spread);
            }
            let values = rounded(values, kept);
            let scale = 1.0 / (*head_size as f32).sqrt();
            let relative =
                relative.map(|term| self::relative(backend, random, term, (*heads, hidden), kept)).transpose()?;
            Operands::Attention {
                relative,
                qkv: backend.write(segments.rows(), 3 * hidden, &values)?,
                layout: backend.layout(&segments)?,
                attention: Attention { heads: *heads, head_size: *head_size, scale, mask: *mask },
            }
        }
        Operation::Embed { rows, cols, entries, stored } => {
            let table = |&n: &usize| backend.table(tensor(random, &[n, *cols], 1.0, *stored)?.cast(kept).cast(*stored));
            let tables = entries.iter().map(table).collect::<Result<_>>()?;
            let ids = entries.iter().map(|&n| (0..*rows).map(|_| random.below(n) as u32).collect()).collect();
            Operands::Embed { tables, ids }
        }
        Operation::TakeRows { rows, cols, count } => {
            let indices = (0..*count).map(|_| random.below(*rows) as u32).collect();
            Operands::TakeRows { x: normal(random, *rows, *cols)?, indices }
        }
        Operation::ReduceRows { lengths, cols, reduction } => {
            let segments = Segments::from_lengths(lengths)?;
            let x = normal(random, segments.rows(), *cols)?;
            Operands::ReduceRows { x, layout: backend.layout(&segments)?, reduction: *reduction }
        }
    };
    Ok(Prepared { backend, operands })
}

impl<B: Backend> Prepared<'_, B> {
    /// The operation's result on the host; several results one after the other.
    pub(super) fn result(&self) -> Result<Vec<f32>> {
        let parts: Result<Vec<_>> = self.apply()?.0.iter().map(|part| self.backend.read(part)).collect();
        Ok(parts?.concat())
    }

    /// The time of one run: the operation, and the copy of its result to the host by which every backend is sure to
    /// have finished.
    pub(super) fn run(&self) -> Result<Duration> {
        let (out, started) = self.apply()?;
        for part in &out {
            self.backend.read(part)?;
        }
        Ok(started.elapsed())
    }

    /// The results and when the operation began; an operand that it may overwrite is brought to the device before
    /// that.
    fn apply(&self) -> Result<(Vec<B::Tensor>, Instant)> {
        let b = self.backend;
        let mut started = Instant::now();
        let out = match &self.operands {
            Operands::Linear { x, w, activation } => b.linear(x, w, *activation),
            Operands::Norm { rows, cols, x, residual, n } => {
                let x = b.write(*rows, *cols, x)?;
                started = Instant::now();
                b.norm(x, residual.as_ref(), n)
            }
            Operands::AddNorm { rows, cols, x, residual, n } => {
                let x = b.write(*rows, *cols, x)?;
                started = Instant::now();
                let (sum, normed) = b.add_norm(x, residual, n)?;
                return Ok((vec![sum, normed], started));
            }
            Operands::NormedLinear { x, w, residual, n, sum } => {
                let product = b.linear(x, w, Activation::Identity)?;
                match residual {
                    Some(residual) if *sum => {
                        let (sum, normed) = b.add_norm(product, residual, n)?;
                        return Ok((vec![sum, normed], started));
                    }
                    residual => b.norm(product, residual.as_ref(), n),
                }
            }
            Operands::NormedLayers { x, w: [before, up, down, behind], residual, n: [first, second], sum } => {
                let add_norm = |x, residual: &B::Tensor, n| {
                    if *sum {
                        let (sum, normed) = b.add_norm(x, residual, n)?;
                        return Ok((Some(sum), normed));
                    }
                    Ok::<_, crate::Error>((None, b.norm(x, Some(residual), n)?))
                };
                let (added, normed) = add_norm(b.linear(x, before, Activation::Identity)?, residual, first)?;
                let between = b.linear(&normed, up, Activation::Gelu)?;
                let x = b.linear(&between, down, Activation::Identity)?;
                let (added, normed) = add_norm(x, added.as_ref().unwrap_or(&normed), second)?;
                let out = b.linear(&normed, behind, Activation::Identity)?;
                return Ok((added.into_iter().chain([out]).collect(), started));
            }
            Operands::Gate { x, activation } => b.gate(x, *activation),
            Operands::Rotate { rows, cols, qkv, layout, rotation } => {
                let qkv = b.write(*rows, *cols, qkv)?;
                started = Instant::now();
                b.rotate(qkv, layout, rotation)
            }
            Operands::Attention { qkv, layout, attention, relative } => {
                b.attention(qkv, layout, attention, relative.as_ref())
            }
            Operands::Embed { tables, ids } => {
                let lookups: Vec<_> = tables.iter().zip(ids).map(|(table, ids)| Lookup { table, ids }).collect();
                b.embed(&lookups)
            }
            Operands::TakeRows { x, indices } => b.take_rows(x, indices),
            Operands::ReduceRows { x, layout, reduction } => b.reduce_rows(x, layout, *reduction),
        };
        Ok((vec![out?], started))
    }
}

/// A relative term of random buckets and parts; its products with queries and keys have the size of theirs.
fn relative<B: Backend>(
    backend: &B,
    random: &mut Random,
    term: RelativeTerm,
    (heads, hidden): (usize, usize),
    kept: DType,
) -> Result<B::Relative> {
    let mut part = |present: bool, cols: usize| {
        let mut values = || rounded(random.normals(term.buckets * cols, 1.0), kept);
        present.then(|| backend.write(term.buckets, cols, &values())).transpose()
    };
    let (keys, queries, bias) = (part(term.keys, hidden)?, part(term.queries, hidden)?, part(term.bias, heads)?);
    let buckets = (0..=2 * term.reach).map(|_| random.below(term.buckets) as u32).collect();
    backend.relative(RelativeSource { buckets, keys, queries, bias })
}

/// A linear layer of parts with so many outputs each, of whose weights `weights` makes each part's.
fn joined(
    random: &mut Random,
    outputs: &[usize],
    (bias, stored, precision): (bool, DType, Precision),
    weights: impl Fn(&mut Random, usize) -> Result<LinearWeight>,
) -> Result<MatrixSource> {
    let part = |&outputs: &usize| {
        let weight = weights(random, outputs)?;
        Ok(LinearPart { weight, bias: bias.then(|| tensor(random, &[outputs], 1.0, stored)).transpose()? })
    };
    Ok(MatrixSource::new(outputs.iter().map(part).collect::<Result<_>>()?, precision))
}

/// Linear layers of these outputs and inputs.
fn matrices<B: Backend>(
    backend: &B,
    random: &mut Random,
    [a, b, c, d]: [(usize, usize); 4],
    precision: Precision,
) -> Result<[B::Matrix; 4]> {
    let mut matrix = |(outputs, inputs)| backend.matrix(plain(random, outputs, inputs, precision)?);
    Ok([matrix(a)?, matrix(b)?, matrix(c)?, matrix(d)?])
}

/// Two norms.
fn norms<B: Backend>(backend: &B, random: &mut Random, kind: NormKind, cols: usize) -> Result<[B::Norm; 2]> {
    let mut norm = || backend.norm_weights(with_gain(random, kind, cols)?);
    Ok([norm()?, norm()?])
}

/// A linear layer with a bias by whose weights results are of size 1.
fn plain(random: &mut Random, outputs: usize, inputs: usize, precision: Precision) -> Result<MatrixSource> {
    let weight = tensor(random, &[outputs, inputs], 1.0 / (inputs as f32).sqrt(), DType::F32)?.into();
    let bias = Some(tensor(random, &[outputs], 1.0, DType::F32)?);
    Ok(MatrixSource::new(vec![LinearPart { weight, bias }], precision))
}

/// A norm; LayerNorm has a shift.
fn with_gain(random: &mut Random, kind: NormKind, cols: usize) -> Result<NormSource> {
    let gain = tensor(random, &[cols], 1.0, DType::F32)?;
    let shift = (kind == NormKind::LayerNorm).then(|| tensor(random, &[cols], 1.0, DType::F32)).transpose()?;
    Ok(NormSource { kind, gain, shift, eps: 1e-5 })
}

fn rounded(values: Vec<f32>, kept: DType) -> Vec<f32> {
    match kept {
        DType::F32 => values,
        DType::F16 => values.into_iter().map(|v| f16::from_f32(v).to_f32()).collect(),
        DType::Bf16 => values.into_iter().map(|v| bf16::from_f32(v).to_f32()).collect(),
    }
}

fn tensor(random: &mut Random, shape: &[usize], scale: f32, stored: DType) -> Result<HostTensor> {
    let values = random.normals(shape.iter().product(), scale);
    Ok(HostTensor::from_f32(shape, &values)?.cast(stored))
}

/// Packed weights by which results are of size 1: rounded ones, or any codes where they are floats themselves.
fn packed(random: &mut Random, shape: [usize; 2], scheme: Scheme, stored: DType) -> Result<Quantised> {
    let [outputs, inputs] = shape;
    if let Scheme::Affine { bits, group } = scheme {
        return Quantised::affine(&tensor(random, &shape, 1.0 / (inputs as f32).sqrt(), stored)?, bits, group);
    }
    // Floats of 8 bits without the uppermost exponents: so both kinds are of size 2, and a scale of 2^-4 to 2^-6 is right
    // for 64 inputs.
    let kept = if scheme == Scheme::Mxfp8 { 0xbf } else { 0xff };
    let codes: Vec<u8> = (0..outputs * inputs * scheme.bits() / 8).map(|_| random.bits() as u8 & kept).collect();
    let scale = |random: &mut Random| match (scheme, random.below(3) as u8) {
        (Scheme::Nvfp4, less) => (7 - 4 - less) << 3,
        (_, less) => 127 - 4 - less,
    };
    let scales: Vec<u8> = (0..outputs * inputs / scheme.group()).map(|_| scale(random)).collect();
    Quantised::new(scheme, shape, codes.into(), Scales::Bytes(scales.into()))
}
