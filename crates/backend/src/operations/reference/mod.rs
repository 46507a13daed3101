//! The specification of [`Operations`]: plain loops, sums in f64, rounded to f32 once at the end.

mod product;
mod rows;

use super::shapes::{Axis, Convolution, Product, indices, lengths, segments};
use super::{Element, Form, HostArray, Operation, Operations, Values};
use crate::reference::activate;
use crate::{Activation, Error, Reference, Result};

impl Operations for Reference {
    type Array = HostArray;

    fn upload(&self, _: &Operation, _: usize, array: &HostArray) -> Result<HostArray> {
        Ok(array.clone())
    }

    fn run(&self, operation: &Operation, inputs: &[&HostArray]) -> Result<HostArray> {
        let forms: Vec<Form<'_>> = inputs.iter().map(|x| x.form()).collect();
        let shape = operation.shape(&forms)?;
        let values = match operation.element() {
            Element::F32 => {
                let mut out = zeros(&shape)?;
                floats(operation, inputs, &mut out)?;
                Values::F32(out)
            }
            Element::I32 => Values::I32(integers(operation, inputs, &shape)?),
        };
        HostArray::new(shape, values)
    }

    fn wait(&self, _: &HostArray) -> Result<()> {
        Ok(())
    }

    fn download(&self, array: &HostArray) -> Result<HostArray> {
        Ok(array.clone())
    }
}

/// As many values of a type's zero, or an error where there is no room for them.
fn zeros<T: Clone + Default>(shape: &[usize]) -> Result<Vec<T>> {
    let len = shape.iter().product();
    let mut out = Vec::new();
    let bytes = size_of::<T>().saturating_mul(len);
    out.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { backend: "reference", bytes })?;
    out.resize(len, T::default());
    Ok(out)
}

/// The only operation whose result are integers is [`Operation::Argmax`].
fn integers(operation: &Operation, inputs: &[&HostArray], shape: &[usize]) -> Result<Vec<i32>> {
    let mut out = zeros(shape)?;
    let (Operation::Argmax(axis), [x]) = (operation, inputs) else { return Ok(out) };
    along(x, Axis::new(operation, *axis, x.form().shape)?, |i, line| {
        let mut best = 0;
        for (at, &value) in line.iter().enumerate() {
            if value > line[best] {
                best = at;
            }
        }
        out[i] = best as i32;
    });
    Ok(out)
}

/// Calls `f` with the number of each line along an axis, and its values.
fn along(x: &HostArray, axis: Axis, mut f: impl FnMut(usize, &[f32])) {
    let x = x.floats();
    let mut line = vec![0.0; axis.len];
    for i in 0..axis.outer * axis.inner {
        let first = i / axis.inner * axis.len * axis.inner + i % axis.inner;
        line.iter_mut().enumerate().for_each(|(k, v)| *v = x[first + k * axis.inner]);
        f(i, &line);
    }
}

/// Where value `k` of line `i` along an axis lies.
fn place(axis: Axis, i: usize, k: usize) -> usize {
    (i / axis.inner * axis.len + k) * axis.inner + i % axis.inner
}

#[allow(clippy::too_many_lines)] // an arm for each operation
fn floats(operation: &Operation, inputs: &[&HostArray], out: &mut [f32]) -> Result<()> {
    let x = inputs[0].floats();
    let shape = |i: usize| inputs[i].form().shape;
    let map = |out: &mut [f32], f: &dyn Fn(f64) -> f64| {
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = f(f64::from(x)) as f32);
    };
    let activation = |out: &mut [f32], a: Activation| map(out, &|x| activate(a, x));
    match operation {
        Operation::Argmax(_) => {}
        Operation::HostToDevice | Operation::DeviceToHost => out.copy_from_slice(x),
        Operation::LeakyRelu => activation(out, Activation::LeakyRelu),
        Operation::Relu => activation(out, Activation::Relu),
        Operation::Sigmoid => activation(out, Activation::Sigmoid),
        Operation::Gelu => activation(out, Activation::Gelu),
        Operation::GeluTanh => activation(out, Activation::GeluTanh),
        Operation::Softplus => map(out, &|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        Operation::Selu => map(out, &|x| SELU_SCALE * (x.max(0.0) + (SELU_ALPHA * x.exp_m1()).min(0.0))),
        Operation::Prelu => {
            let a = f64::from(inputs[1].floats()[0]);
            map(out, &|x| x.max(0.0) + a * x.min(0.0));
        }
        Operation::Bce => {
            let ln = |x: f64| x.ln().max(-100.0);
            let loss = |(&p, &y): (&f32, &f32)| {
                let (p, y) = (f64::from(p), f64::from(y));
                -(y * ln(p) + (1.0 - y) * ln(1.0 - p))
            };
            out[0] = (x.iter().zip(inputs[1].floats()).map(loss).sum::<f64>() / x.len() as f64) as f32;
        }
        Operation::SumAll => out[0] = x.iter().map(|&v| f64::from(v)).sum::<f64>() as f32,
        Operation::Sum(axis) => along(inputs[0], Axis::new(operation, *axis, shape(0))?, |i, line| {
            out[i] = line.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
        }),
        Operation::Softmax(axis) => {
            let axis = Axis::new(operation, *axis, shape(0))?;
            along(inputs[0], axis, |i, line| {
                let line: Vec<f64> = line.iter().map(|&v| f64::from(v)).collect();
                rows::softmax(&line).enumerate().for_each(|(k, v)| out[place(axis, i, k)] = v as f32);
            });
        }
        Operation::Sort(axis) => {
            let axis = Axis::new(operation, *axis, shape(0))?;
            along(inputs[0], axis, |i, line| {
                let mut line = line.to_vec();
                line.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())));
                line.into_iter().enumerate().for_each(|(k, v)| out[place(axis, i, k)] = v);
            });
        }
        Operation::Concat(axis) => {
            let (a, b) = (Axis::new(operation, *axis, shape(0))?, Axis::new(operation, *axis, shape(1))?);
            let (wide_a, wide_b) = (a.len * a.inner, b.len * b.inner);
            for (out, i) in out.chunks_exact_mut(wide_a + wide_b).zip(0..) {
                out[..wide_a].copy_from_slice(&x[i * wide_a..][..wide_a]);
                out[wide_a..].copy_from_slice(&inputs[1].floats()[i * wide_b..][..wide_b]);
            }
        }
        Operation::Gather | Operation::Embedding => {
            indices(operation, inputs[1].integers(), shape(0)[0])?;
            rows::gather(x, shape(0)[1], inputs[1].integers(), out);
        }
        Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => {
            for list in &inputs[1..] {
                indices(operation, list.integers(), shape(0)[0])?;
            }
            let edges = inputs[1].integers().iter().zip(inputs[2].integers());
            rows::scatter(*operation, x, shape(0)[1], edges.map(|(&s, &t)| (s as usize, t as usize)), out);
        }
        Operation::LayerNorm => rows::layer_norm(x, shape(0), None, 1e-5, out),
        Operation::AddLayerNorm => {
            let sum: Vec<f64> = x.iter().zip(inputs[1].floats()).map(|(&x, &r)| f64::from(x) + f64::from(r)).collect();
            rows::layer_norm(&sum, shape(0), Some([inputs[2].floats(), inputs[3].floats()]), 1e-12, out);
        }
        Operation::RmsNorm => rows::rms_norm(x, inputs[1].floats(), out),
        Operation::Rope => rows::rotate(x, shape(0), out),
        Operation::MeanPoolNormalize => {
            let segments = segments(operation, inputs[1].integers(), shape(0)[0])?;
            rows::mean_normalized(x, shape(0)[1], &segments, out);
        }
        Operation::Conv1d | Operation::Conv2d => {
            product::convolve(x, inputs[1].floats(), Convolution::new(shape(0), shape(1)), out);
        }
        Operation::MatMul => {
            product::multiply(x, inputs[1].floats(), Product::new(shape(0), shape(1)), |_, sum| sum, out);
        }
        Operation::Linear
        | Operation::PackedQkv
        | Operation::LinearInt8
        | Operation::LinearQ4
        | Operation::LinearGelu => {
            let activation = if *operation == Operation::LinearGelu { Activation::Gelu } else { Activation::Identity };
            let finish = |c: usize, sum: f64| activate(activation, sum + f64::from(inputs[2].floats()[c]));
            product::multiply(x, inputs[1].floats(), Product::new(shape(0), shape(1)), finish, out);
        }
        Operation::ScaledDotProductAttention => {
            let head = |i: usize| (i, shape(0)[2], shape(1)[2]);
            let [heads, size] = [shape(0)[0] * shape(0)[1], shape(0)[3]];
            for (i, queries, keys) in (0..heads).map(head) {
                let q = &x[i * queries * size..][..queries * size];
                let [k, v] = [1, 2].map(|n| &inputs[n].floats()[i * keys * size..][..keys * size]);
                let out = &mut out[i * queries * size..][..queries * size];
                rows::attend([q, k, v], [size; 2], size, |query| keys.min(query + 1), out);
            }
        }
        Operation::SelfAttention => {
            let &[_, heads, length, size] = shape(0) else { return Ok(()) };
            for (batch, seen) in lengths(operation, inputs[3].integers(), length)?.into_iter().enumerate() {
                for first in (0..heads).map(|h| (batch * heads + h) * length * size) {
                    let [q, k, v] = [0, 1, 2].map(|n| &inputs[n].floats()[first..][..seen * size]);
                    rows::attend([q, k, v], [size; 2], size, |_| seen, &mut out[first..][..seen * size]);
                }
            }
        }
        Operation::RaggedAttention(heads) => {
            let cols = shape(0)[1];
            let (hidden, size) = (cols / 3, cols / 3 / heads);
            for range in segments(operation, inputs[1].integers(), shape(0)[0])?.ranges() {
                for head in 0..*heads {
                    let [q, k, v] = [0, 1, 2].map(|n| &x[range.start * cols + n * hidden + head * size..]);
                    let out = &mut out[range.start * hidden + head * size..range.end * hidden];
                    rows::attend([q, k, v], [cols, hidden], size, |_| range.len(), out);
                }
            }
        }
    }
    Ok(())
}

const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

#[cfg(test)]
mod tests;
