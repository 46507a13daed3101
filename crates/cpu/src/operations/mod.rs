//! The study's operations on the CPU: kernels for arrays of any shape, each judged by its speed like a model's.
//!
//! Where they and the models' kernels compute the same, they share the code: register tiles, exponentials, norms.
//!
//! Where next: a file for each family; docs/performance/operations.md says how near each comes to the machine's limits.

mod attend;
mod convolve;
mod copy;
mod map;
pub(crate) mod product;
mod reduce;
mod rows;
mod scatter;
mod softmax;
mod sort;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use mlxt_backend::operations::shapes::{self, Axis, Convolution, Product};
use mlxt_backend::operations::{Element, Form, HostArray, Operation, Operations, Values};
use mlxt_backend::{Activation, Error, HostTensor, LinearPart, Result};

use crate::Cpu;
use crate::arena::{Arena, Buffer};
use crate::kernels::integer::{self, Bits};
use crate::simd::Token;
use crate::threads::Pool;

/// What kernels work with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    token: Token,
    pool: &'a Pool,
    arena: &'a Arc<Arena>,
}

impl Context<'_> {
    /// Runs `body` for each of `0..tasks`, on all threads if there are enough `steps` of work in all.
    fn each(&self, tasks: usize, steps: usize, body: impl Fn(usize) + Sync) {
        /// About 10 microseconds: less is not worth the hand-off.
        const SMALL: usize = 1 << 15;
        if steps < SMALL {
            (0..tasks).for_each(body);
        } else {
            self.pool.run(tasks, |_, claims| claims.for_each(&body));
        }
    }

    /// That every index is in `0..limit`, on all threads.
    ///
    /// # Errors
    /// The first that is not.
    fn indices(&self, operation: &Operation, indices: &[i32], limit: usize) -> Result<()> {
        /// Indices of a task: 64 KiB.
        const PART: usize = 1 << 14;
        let inside = |part: &[i32]| shapes::indices(operation, part, limit);
        let all_inside = AtomicBool::new(true);
        self.each(indices.len().div_ceil(PART), indices.len(), |i| {
            if inside(&indices[i * PART..indices.len().min((i + 1) * PART)]).is_err() {
                all_inside.store(false, Relaxed);
            }
        });
        // Which is the first, one thread finds out where there is one.
        if all_inside.into_inner() { Ok(()) } else { inside(indices) }
    }
}

/// Values from here on (16 MiB) are streamed past the caches: they would push everything else out of them, and be gone
/// themselves before they are read.
const FAR: usize = 4 << 20;

/// An array of the CPU backend. Its memory goes back to the [`Cpu`] when it is dropped.
#[derive(Debug)]
pub struct Array {
    element: Element,
    shape: Vec<usize>,
    /// The bits of integers, where it holds those.
    values: Buffer,
    /// Instead of values: weights of small integers.
    weights: Option<integer::Matrix>,
}

impl Array {
    fn form(&self) -> Form<'_> {
        Form { element: self.element, shape: &self.shape }
    }

    /// Its values as integers.
    fn integers(&self) -> &[i32] {
        // SAFETY: i32 has the size and alignment of f32, and any bits are one.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), self.values.len()) }
    }
}

impl Operations for Cpu {
    type Array = Array;

    fn upload(&self, operation: &Operation, position: usize, array: &HostArray) -> Result<Array> {
        let Form { element, shape } = array.form();
        if let (Some(bits), 1, &[inputs, outputs], Values::F32(w)) = (bits(operation), position, shape, array.values())
        {
            let weight = (0..outputs * inputs).map(|i| w[i % inputs * outputs + i / inputs]).collect::<Vec<_>>();
            let parts = [LinearPart { weight: HostTensor::from_f32(&[outputs, inputs], &weight)?, bias: None }];
            let weights = integer::Matrix::new(
                (self.token, &self.pool),
                &parts,
                (bits, bits == Bits::Eight, None),
                (outputs, inputs),
            )?;
            return Ok(Array { element, shape: shape.to_vec(), values: self.arena.take(0)?, weights: Some(weights) });
        }
        let mut values = self.arena.take(shape.iter().product())?;
        match array.values() {
            Values::F32(from) => copy::copy(self.context(), from, &mut values),
            Values::I32(from) => values.iter_mut().zip(from).for_each(|(to, &v)| *to = f32::from_bits(v as u32)),
        }
        Ok(Array { element, shape: shape.to_vec(), values, weights: None })
    }

    fn run(&self, operation: &Operation, inputs: &[&Array]) -> Result<Array> {
        let forms: Vec<Form<'_>> = inputs.iter().map(|x| x.form()).collect();
        let shape = operation.shape(&forms)?;
        let mut values = self.arena.take(shape.iter().product())?;
        compute(self.context(), operation, inputs, &mut values)?;
        Ok(Array { element: operation.element(), shape, values, weights: None })
    }

    fn wait(&self, _: &Array) -> Result<()> {
        Ok(())
    }

    fn download(&self, array: &Array) -> Result<HostArray> {
        let values = match array.element {
            Element::F32 => Values::F32(array.values.to_vec()),
            Element::I32 => Values::I32(array.integers().to_vec()),
        };
        HostArray::new(array.shape.clone(), values)
    }
}

impl Cpu {
    pub(crate) fn context(&self) -> Context<'_> {
        Context { token: self.token, pool: &self.pool, arena: &self.arena }
    }
}

/// The weights that an operation keeps as small integers.
fn bits(operation: &Operation) -> Option<Bits> {
    match operation {
        Operation::LinearInt8 => Some(Bits::Eight),
        Operation::LinearQ4 => Some(Bits::Four),
        _ => None,
    }
}

/// Computes an operation whose operands have been checked, all but the values of indices.
fn compute(context: Context<'_>, operation: &Operation, inputs: &[&Array], out: &mut [f32]) -> Result<()> {
    let x = &*inputs[0].values;
    let shape = |i: usize| &*inputs[i].shape;
    let floats = |i: usize| &*inputs[i].values;
    match operation {
        Operation::HostToDevice | Operation::DeviceToHost => copy::copy(context, x, out),
        Operation::LeakyRelu => map::map(context, map::Function::LeakyRelu, x, out),
        Operation::Relu => map::map(context, map::Function::Relu, x, out),
        Operation::Selu => map::map(context, map::Function::Selu, x, out),
        Operation::Sigmoid => map::map(context, map::Function::Sigmoid, x, out),
        Operation::Softplus => map::map(context, map::Function::Softplus, x, out),
        Operation::Gelu => map::map(context, map::Function::Gelu, x, out),
        Operation::GeluTanh => map::map(context, map::Function::GeluTanh, x, out),
        Operation::Prelu => map::map(context, map::Function::Prelu(floats(1)[0]), x, out),
        Operation::Bce => out[0] = reduce::cross_entropy(context, x, floats(1))?,
        Operation::SumAll => out[0] = reduce::sum_all(context, x)?,
        Operation::Sum(axis) => reduce::sum(context, x, Axis::new(operation, *axis, shape(0))?, out)?,
        Operation::Argmax(axis) => reduce::argmax(context, x, Axis::new(operation, *axis, shape(0))?, out),
        Operation::Softmax(axis) => softmax::softmax(context, x, Axis::new(operation, *axis, shape(0))?, out),
        Operation::Sort(axis) => sort::sort(context, x, Axis::new(operation, *axis, shape(0))?, out)?,
        Operation::Concat(axis) => {
            let [a, b] = [0, 1].map(|i| Axis::new(operation, *axis, shape(i)));
            let (a, b) = (a?, b?);
            copy::join(context, [(x, a.len * a.inner), (floats(1), b.len * b.inner)], out);
        }
        Operation::Gather | Operation::Embedding => {
            rows::gather(context, operation, x, shape(0), inputs[1].integers(), out)?;
        }
        Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => {
            let edges = [inputs[1].integers(), inputs[2].integers()];
            scatter::scatter(context, operation, x, shape(0), edges, out)?;
        }
        Operation::LayerNorm => rows::layer_norm(context, x, shape(0), out),
        Operation::AddLayerNorm => rows::add_layer_norm(context, x, floats(1), [floats(2), floats(3)], out),
        Operation::RmsNorm => rows::rms_norm(context, x, floats(1), out),
        Operation::Rope => rows::rotate(context, x, shape(0), out)?,
        Operation::MeanPoolNormalize => {
            rows::mean_normalized(context, operation, x, shape(0), inputs[1].integers(), out)?;
        }
        Operation::Conv1d | Operation::Conv2d => {
            convolve::convolve(context, x, floats(1), Convolution::new(shape(0), shape(1)), out)?;
        }
        Operation::MatMul => {
            let sizes = Product::new(shape(0), shape(1));
            product::multiply(context, [x, floats(1)], None, Activation::Identity, sizes, out)?;
        }
        Operation::Linear | Operation::PackedQkv | Operation::LinearGelu => {
            let gelu = *operation == Operation::LinearGelu;
            let activation = if gelu { Activation::Gelu } else { Activation::Identity };
            let sizes = Product::new(shape(0), shape(1));
            product::multiply(context, [x, floats(1)], Some(floats(2)), activation, sizes, out)?;
        }
        Operation::ScaledDotProductAttention => {
            attend::causal(context, [x, floats(1), floats(2)], shape(0), shape(1), out)?;
        }
        Operation::SelfAttention => {
            attend::padded(context, operation, [x, floats(1), floats(2)], shape(0), inputs[3].integers(), out)?;
        }
        Operation::RaggedAttention(heads) => {
            attend::ragged(context, operation, x, shape(0), (*heads, inputs[1].integers()), out)?;
        }
        Operation::LinearInt8 | Operation::LinearQ4 => {
            let weights = inputs[1].weights.as_ref().filter(|weights| Some(weights.bits()) == bits(operation));
            let what = || format!("{operation} over weights that were not uploaded for it");
            let weights = weights.ok_or_else(|| Error::Unsupported { backend: "cpu", what: what() })?;
            let context = (context.token, context.pool, context.arena);
            integer::linear(context, x, weights, Some(floats(2)), Activation::Identity, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
