//! The specification: every operation as a plain loop, sums in f64, rounded to f32 once at the end.
//!
//! Not fast and not meant to be. A backend that differs from this by more than the conformance tolerances is wrong.

use crate::{
    Activation, Arithmetic, Attention, Backend, DType, DeviceInfo, Error, HostTensor, LinearPart, Lookup, MatrixSource,
    NormKind, NormSource, Precision, Reduction, RelativeSource, Result, Rotation, Segments, Shaped, check,
};

/// The backend of plain loops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// Values in host memory, `[rows, cols]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Values {
    fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        Self { rows, cols, data }
    }

    fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..][..self.cols]
    }
}

impl Shaped for Values {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
}

/// A linear layer, `[outputs, inputs]` with a bias for each output.
#[derive(Debug, Clone)]
pub struct Matrix {
    weight: Values,
    bias: Vec<f32>,
}

impl Shaped for Matrix {
    fn rows(&self) -> usize {
        self.weight.rows
    }
    fn cols(&self) -> usize {
        self.weight.cols
    }
}

/// A normalisation.
#[derive(Debug, Clone)]
pub struct Norm {
    kind: NormKind,
    gain: Vec<f32>,
    shift: Vec<f32>,
    eps: f64,
}

impl Backend for Reference {
    type Tensor = Values;
    type Matrix = Matrix;
    type Norm = Norm;
    type Table = Values;
    type Relative = RelativeSource<Values>;
    type Layout = Segments;

    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            device: "reference".into(),
            hardware: std::env::consts::ARCH.into(),
            detail: "plain loops, f64 sums".into(),
            arithmetic: Arithmetic::F32,
        }
    }

    fn matrix(&self, source: MatrixSource) -> Result<Matrix> {
        let (rows, cols) = check::matrix(&source)?;
        let precision = source.precision;
        let supported = "f32, bf16, f16";
        let unsupported = Error::UnsupportedPrecision { backend: "reference", precision, supported };
        let dtype = precision.element().filter(|_| precision != Precision::Tf32).ok_or(unsupported)?;
        if dtype != DType::F32 {
            check::weight_range(&source, precision)?;
        }
        let mut weight = Vec::with_capacity(rows * cols);
        let mut bias = Vec::with_capacity(rows);
        for part in source.parts.iter().map(LinearPart::full) {
            weight.extend(part.weight.cast(dtype).to_f32());
            let zeros = || vec![0.0; part.weight.shape()[0]];
            bias.extend(part.bias.as_ref().map_or_else(zeros, HostTensor::to_f32));
        }
        Ok(Matrix { weight: Values::new(rows, cols, weight), bias })
    }

    fn table(&self, tensor: HostTensor) -> Result<Values> {
        let (rows, cols) = check::table(&tensor)?;
        Ok(Values::new(rows, cols, tensor.to_f32()))
    }

    fn norm_weights(&self, source: NormSource) -> Result<Norm> {
        let cols = check::norm_weights(&source)?;
        let shift = source.shift.as_ref().map_or_else(|| vec![0.0; cols], HostTensor::to_f32);
        Ok(Norm { kind: source.kind, gain: source.gain.to_f32(), shift, eps: f64::from(source.eps) })
    }

    fn relative(&self, source: RelativeSource<Values>) -> Result<RelativeSource<Values>> {
        check::relative(&source)?;
        Ok(source)
    }

    fn layout(&self, segments: &Segments) -> Result<Segments> {
        Ok(segments.clone())
    }

    fn write(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Values> {
        check::write(rows, cols, values)?;
        Ok(Values::new(rows, cols, values.to_vec()))
    }

    fn read(&self, x: &Values) -> Result<Vec<f32>> {
        Ok(x.data.clone())
    }

    fn embed(&self, lookups: &[Lookup<'_, Values>]) -> Result<Values> {
        let (rows, cols) = check::embed(lookups)?;
        let mut out = Vec::with_capacity(rows * cols);
        for r in 0..rows {
            for c in 0..cols {
                let sum: f64 = lookups.iter().map(|l| f64::from(l.table.row(l.ids[r] as usize)[c])).sum();
                out.push(sum as f32);
            }
        }
        Ok(Values::new(rows, cols, out))
    }

    fn linear(&self, x: &Values, w: &Matrix, activation: Activation) -> Result<Values> {
        check::size("linear", "inputs", w.cols(), x.cols())?;
        let mut out = Vec::with_capacity(x.rows * w.rows());
        for r in 0..x.rows {
            for o in 0..w.rows() {
                let sum = dot(x.row(r), w.weight.row(o)) + f64::from(w.bias[o]);
                out.push(activate(activation, sum) as f32);
            }
        }
        Ok(Values::new(x.rows, w.rows(), out))
    }

    fn norm(&self, x: Values, residual: Option<&Values>, n: &Norm) -> Result<Values> {
        check::norm(&x, residual, n.gain.len())?;
        let mut out = Vec::with_capacity(x.data.len());
        for r in 0..x.rows {
            let mut row: Vec<f64> = x.row(r).iter().map(|&v| f64::from(v)).collect();
            if let Some(residual) = residual {
                row.iter_mut().zip(residual.row(r)).for_each(|(v, &add)| *v += f64::from(add));
            }
            let count = x.cols as f64;
            let mean = match n.kind {
                NormKind::LayerNorm => row.iter().sum::<f64>() / count,
                NormKind::RmsNorm => 0.0,
            };
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            let root = (variance + n.eps).sqrt();
            out.extend(
                row.iter()
                    .zip(&n.gain)
                    .zip(&n.shift)
                    .map(|((v, &gain), &shift)| ((v - mean) / root * f64::from(gain) + f64::from(shift)) as f32),
            );
        }
        Ok(Values::new(x.rows, x.cols, out))
    }

    fn add_norm(&self, mut x: Values, residual: &Values, n: &Norm) -> Result<(Values, Values)> {
        let normed = self.norm(x.clone(), Some(residual), n)?;
        x.data.iter_mut().zip(&residual.data).for_each(|(x, add)| *x += add);
        Ok((x, normed))
    }

    fn gate(&self, x: &Values, activation: Activation) -> Result<Values> {
        let cols = check::gate(x)?;
        let mut out = Vec::with_capacity(x.rows * cols);
        for (left, right) in (0..x.rows).map(|r| x.row(r).split_at(cols)) {
            let gated = |(&l, &r): (&f32, &f32)| (activate(activation, f64::from(l)) * f64::from(r)) as f32;
            out.extend(left.iter().zip(right).map(gated));
        }
        Ok(Values::new(x.rows, cols, out))
    }

    fn rotate(&self, mut qkv: Values, segments: &Segments, r: &Rotation) -> Result<Values> {
        check::rotate(&qkv, segments, r)?;
        let (frequencies, half) = (r.frequencies(), r.head_size / 2);
        for range in segments.ranges() {
            for (position, row) in range.enumerate() {
                let row = &mut qkv.data[row * qkv.cols..][..qkv.cols];
                for head in row.chunks_exact_mut(r.head_size).take(2 * r.heads) {
                    for (t, frequency) in frequencies.iter().enumerate() {
                        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                        let (x, y) = (f64::from(head[t]), f64::from(head[t + half]));
                        head[t] = (x * cos - y * sin) as f32;
                        head[t + half] = (y * cos + x * sin) as f32;
                    }
                }
            }
        }
        Ok(qkv)
    }

    fn attention(
        &self,
        qkv: &Values,
        segments: &Segments,
        a: &Attention,
        relative: Option<&RelativeSource<Values>>,
    ) -> Result<Values> {
        let hidden = check::attention(qkv, segments, a, relative.map(Into::into))?;
        let mut out = vec![0.0; qkv.rows * hidden];
        for range in segments.ranges() {
            for head in 0..a.heads {
                let part = |row: usize, which: usize| {
                    &qkv.row(range.start + row)[which * hidden + head * a.head_size..][..a.head_size]
                };
                for i in 0..range.len() {
                    let seen = a.mask.visible(i, range.len());
                    let score = |j: usize| {
                        let (mut products, mut added) = (dot(part(i, 0), part(j, 1)), 0.0);
                        if let Some(relative) = relative {
                            let bucket = bucket(&relative.buckets, i, j);
                            let times = |row: &[f32], of: &Values| dot(row, &of.row(bucket)[head * a.head_size..]);
                            products += relative.keys.as_ref().map_or(0.0, |keys| times(part(i, 0), keys));
                            products += relative.queries.as_ref().map_or(0.0, |queries| times(part(j, 1), queries));
                            added = relative.bias.as_ref().map_or(0.0, |bias| f64::from(bias.row(bucket)[head]));
                        }
                        f64::from(a.scale) * products + added
                    };
                    let scores: Vec<f64> = seen.clone().map(score).collect();
                    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..a.head_size {
                        let sum: f64 = seen.clone().zip(&weights).map(|(j, w)| w * f64::from(part(j, 2)[d])).sum();
                        out[(range.start + i) * hidden + head * a.head_size + d] = (sum / total) as f32;
                    }
                }
            }
        }
        Ok(Values::new(qkv.rows, hidden, out))
    }

    fn take_rows(&self, x: &Values, indices: &[u32]) -> Result<Values> {
        check::take_rows(x, indices)?;
        let out = indices.iter().flat_map(|&i| x.row(i as usize)).copied().collect();
        Ok(Values::new(indices.len(), x.cols, out))
    }

    fn reduce_rows(&self, x: &Values, segments: &Segments, reduction: Reduction) -> Result<Values> {
        check::size("reduce rows", "rows of the layout", segments.rows(), x.rows())?;
        let mut out = Vec::with_capacity(segments.count() * x.cols);
        for range in segments.ranges() {
            let count = range.len() as f64;
            for c in 0..x.cols {
                let column = range.clone().map(|r| f64::from(x.row(r)[c]));
                let value = match reduction {
                    Reduction::Mean => column.sum::<f64>() / count,
                    Reduction::Max => column.fold(f64::NEG_INFINITY, f64::max),
                    Reduction::MeanSqrtLength => column.sum::<f64>() / count.sqrt(),
                    Reduction::WeightedMean => {
                        let sum: f64 = column.enumerate().map(|(i, v)| (i + 1) as f64 * v).sum();
                        sum / (count * (count + 1.0) / 2.0)
                    }
                };
                out.push(value as f32);
            }
        }
        Ok(Values::new(segments.count(), x.cols, out))
    }
}

/// The bucket of query `i` and key `j`.
fn bucket(buckets: &[u32], i: usize, j: usize) -> usize {
    let reach = buckets.len() / 2;
    let place = if i >= j { reach + (i - j).min(reach) } else { reach - (j - i).min(reach) };
    buckets[place] as usize
}

/// The product of two rows, or of the shorter and as much of the longer.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Rounded in the source of the formula (MEGA, and `transformers` after it), so it is not √½.
#[allow(clippy::approx_constant)]
const LAPLACE_MEAN: f64 = 0.707_107;

/// [`Activation`] of one number, in f64.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // max(x, 0) + ln(1 + e^-|x|): never overflows.
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    match activation {
        Activation::Identity => x,
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::GeluClipped10 => gelu(x).clamp(-10.0, 10.0),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::LeakyRelu => {
            if x >= 0.0 {
                x
            } else {
                0.01 * x
            }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Laplace => 0.5 * (1.0 + libm::erf((x - LAPLACE_MEAN) / (0.282_095 * std::f64::consts::SQRT_2))),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::SqrtSoftplus => softplus(x).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by PyTorch 2.15 in float64 (`torch.nn.functional`, `transformers.activations`).
    #[test]
    fn activations_are_pytorchs() {
        let near = |a, x, want: f64| {
            let got = activate(a, x);
            assert!((got - want).abs() < 1e-12, "{a:?} of {x} is {got}, not {want}");
        };
        near(Activation::Gelu, 1.0, 0.841_344_746_068_543);
        near(Activation::Gelu, -0.5, -0.154_268_769_362_993_44);
        near(Activation::GeluTanh, 1.0, 0.841_191_990_608_276_7);
        near(Activation::GeluClipped10, 12.0, 10.0);
        near(Activation::QuickGelu, 1.0, 0.845_795_765_932_821_2);
        near(Activation::Silu, 1.0, 0.731_058_578_630_004_9);
        near(Activation::Mish, 1.0, 0.865_098_388_267_310_3);
        near(Activation::Mish, 800.0, 800.0);
        near(Activation::LeakyRelu, -3.0, -0.03);
        near(Activation::Laplace, 1.0, 0.850_429_649_284_570_3);
        near(Activation::HardSwish, -2.0, -0.333_333_333_333_333_3);
        near(Activation::SqrtSoftplus, 1.0, 1.145_976_303_209_723);
        near(Activation::ReluSquared, 3.0, 9.0);
        near(Activation::Relu6, 7.0, 6.0);
        near(Activation::Tanh, 0.5, 0.462_117_157_260_009_74);
        near(Activation::Sigmoid, 0.5, 0.622_459_331_201_854_6);
    }

    #[test]
    fn sequences_do_not_see_each_other() {
        let a = Attention { heads: 1, head_size: 1, scale: 1.0, mask: crate::Mask::Full };
        let x = Reference.write(3, 3, &[0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 9.0, 9.0, 7.0]).unwrap();
        let out = Reference.attention(&x, &Segments::from_lengths(&[2, 1]).unwrap(), &a, None).unwrap();
        assert_eq!(Reference.read(&out).unwrap(), [2.0, 2.0, 7.0]);
    }

    /// Values printed by PyTorch 2.15 for two positions of one head of four columns with a base of 100.
    #[test]
    fn rotations_turn_halves_against_each_other() {
        let r = Rotation { heads: 1, head_size: 4, theta: 100.0 };
        let row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let x = Reference.write(2, 12, &[row, row].concat()).unwrap();
        let out = Reference.rotate(x, &Segments::from_lengths(&[2]).unwrap(), &r).unwrap();
        assert_eq!(out.row(0), row);
        let turned = [-1.984_111_1, 1.590_674_7, 2.462_378, 4.179_683_7, -3.188_785, 5.171_357, 7.989_470_5, 8.559_034];
        for (got, want) in out.row(1).iter().zip(turned.iter().chain(&row[8..])) {
            assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
        }
    }

    #[test]
    fn distances_beyond_the_reach_are_in_the_last_buckets() {
        let buckets = [7, 6, 5, 1, 2]; // of distances -2 to 2
        assert_eq!([(0, 9), (0, 1), (3, 3), (3, 2), (9, 0)].map(|(i, j)| bucket(&buckets, i, j)), [7, 6, 5, 1, 2]);
    }
}
