//! The study's operations on a GPU: kernels for arrays of any shape, each judged by its speed like a model's.
//!
//! All is f32, whatever the device computes models in. Kernels are compiled when an operation first needs one. Memory is
//! taken and given back in the order of the stream, so nothing is asked of the driver after the first run of a size.
//! Indices and lengths that came from the host are checked there, as the host has seen them; kernels leave out what is
//! outside.
//!
//! Where next: `work.rs` for how kernels are started, a file for each kind of operation, `kernels/operations/` for the
//! kernels.

mod attend;
mod convolve;
mod map;
mod product;
mod quantize;
mod reduce;
mod rows;
mod scatter;
mod sort;
mod work;

use mlxt_backend::operations::shapes::{self, Axis, Convolution, Product};
use mlxt_backend::operations::{Element, Form, HostArray, Operation, Operations, Values};
use mlxt_backend::{Error, Result, Segments};

use self::quantize::Quantized;
pub(crate) use self::work::State;
use self::work::Work;
use crate::CudaDevice;
use crate::device::lock;
use crate::ffi::BACKEND;
use crate::ffi::memory::Memory;

/// An array on a GPU.
#[derive(Debug)]
pub struct Array {
    element: Element,
    shape: Vec<usize>,
    /// Its values; of quantised weights, none.
    memory: Memory,
    host: Option<Integers>,
    /// Where sequences of these lengths begin and end.
    offsets: Option<Memory>,
    weights: Option<Quantized>,
}

/// Integers as the host has seen them.
#[derive(Debug)]
struct Integers {
    values: Vec<i32>,
    smallest: i32,
    largest: i32,
}

impl Integers {
    fn new(values: &[i32]) -> Self {
        let (smallest, largest) = values.iter().fold((i32::MAX, i32::MIN), |(s, l), &v| (s.min(v), l.max(v)));
        Self { values: values.to_vec(), smallest, largest }
    }
}

impl Array {
    fn form(&self) -> Form<'_> {
        Form { element: self.element, shape: &self.shape }
    }

    fn at(&self) -> u64 {
        self.memory.address()
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// That every index is in `0..limit`, where the host has seen them.
    fn check_indices(&self, operation: &Operation, limit: usize) -> Result<()> {
        match &self.host {
            Some(seen) if seen.smallest < 0 || seen.largest as usize >= limit => {
                shapes::indices(operation, &seen.values, limit)
            }
            _ => Ok(()),
        }
    }

    /// Its integers. What only the device knows is waited for.
    fn integers(&self) -> Result<Vec<i32>> {
        if let Some(seen) = &self.host {
            return Ok(seen.values.clone());
        }
        self.memory.values(self.count())
    }
}

impl Operations for CudaDevice {
    type Array = Array;

    fn upload(&self, operation: &Operation, position: usize, array: &HostArray) -> Result<Array> {
        let context = &self.inner.context;
        context.bind()?;
        let Form { element, shape } = array.form();
        let mut made = Array {
            element,
            shape: shape.to_vec(),
            memory: Memory::new(context, 0)?,
            host: None,
            offsets: None,
            weights: None,
        };
        match (array.values(), shape) {
            (Values::F32(w), &[inputs, outputs]) if position == 1 && quantize::bits(operation).is_some() => {
                made.weights = Quantized::new(context, operation, w, (inputs, outputs))?;
            }
            (Values::F32(values), _) => made.memory = Memory::with(context, values)?,
            (Values::I32(values), _) => {
                made.memory = Memory::with(context, values)?;
                made.host = Some(Integers::new(values));
                if matches!(operation, Operation::RaggedAttention(_) | Operation::MeanPoolNormalize) {
                    let total = values.iter().try_fold(0_usize, |sum, &n| sum.checked_add(usize::try_from(n).ok()?));
                    if let Some(segments) = total.and_then(|rows| shapes::segments(operation, values, rows).ok()) {
                        made.offsets = Some(offsets(self, &segments)?);
                    }
                }
            }
        }
        Ok(made)
    }

    fn run(&self, operation: &Operation, inputs: &[&Array]) -> Result<Array> {
        let forms: Vec<Form<'_>> = inputs.iter().map(|x| x.form()).collect();
        let shape = operation.shape(&forms)?;
        self.inner.context.bind()?;
        let memory = Memory::new(&self.inner.context, size_of::<f32>() * shape.iter().product::<usize>())?;
        let out = Array { element: operation.element(), shape, memory, host: None, offsets: None, weights: None };
        compute(self, operation, inputs, &out)?;
        Ok(out)
    }

    fn wait(&self, _: &Array) -> Result<()> {
        self.inner.context.bind()?;
        self.inner.context.synchronize()
    }

    fn download(&self, array: &Array) -> Result<HostArray> {
        self.inner.context.bind()?;
        if array.weights.is_some() {
            return Err(unsupported("reading back weights of small integers".into()));
        }
        let values = match array.element {
            Element::F32 => Values::F32(array.memory.values(array.count())?),
            Element::I32 => Values::I32(array.memory.values(array.count())?),
        };
        HostArray::new(array.shape.clone(), values)
    }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { backend: BACKEND, what }
}

fn offsets(device: &CudaDevice, segments: &Segments) -> Result<Memory> {
    let offsets: Vec<u32> = segments.offsets().iter().map(|&offset| offset as u32).collect();
    Memory::with(&device.inner.context, &offsets)
}

/// Starts an operation whose operands have been checked, all but the values of indices.
#[allow(clippy::too_many_lines)] // an arm for each operation
fn compute(device: &CudaDevice, operation: &Operation, inputs: &[&Array], result: &Array) -> Result<()> {
    let state = &mut *lock(&device.inner.operations);
    let work = &mut Work::new(&device.inner, state);
    let (x, out) = (inputs[0], result.at());
    let shape = |i: usize| &*inputs[i].shape;
    let at = |i: usize| inputs[i].at();
    let map = |work: &mut Work<'_>, name, slope| map::map(work, name, (x.at(), out, slope), x.count());
    // Where sequences lie, and the most rows of one.
    let batch = |lengths: &Array, rows: usize| -> Result<(Option<Memory>, usize)> {
        let segments = shapes::segments(operation, &lengths.integers()?, rows)?;
        let made = if lengths.offsets.is_none() { Some(offsets(device, &segments)?) } else { None };
        Ok((made, segments.longest()))
    };
    match operation {
        Operation::HostToDevice | Operation::DeviceToHost => map(work, "map_copy", 0),
        Operation::LeakyRelu => map(work, "map_leaky_relu", 0),
        Operation::Relu => map(work, "map_relu", 0),
        Operation::Selu => map(work, "map_selu", 0),
        Operation::Sigmoid => map(work, "map_sigmoid", 0),
        Operation::Softplus => map(work, "map_softplus", 0),
        Operation::Gelu => map(work, "map_gelu", 0),
        Operation::GeluTanh => map(work, "map_gelu_tanh", 0),
        Operation::Prelu => map(work, "map_prelu", at(1)),
        Operation::Bce => reduce::cross_entropy(work, x.at(), at(1), x.count(), out),
        Operation::SumAll => reduce::sum(work, x.at(), Axis { outer: 1, len: x.count(), inner: 1 }, out),
        Operation::Sum(axis) => reduce::sum(work, x.at(), Axis::new(operation, *axis, shape(0))?, out),
        Operation::Argmax(axis) => reduce::argmax(work, x.at(), Axis::new(operation, *axis, shape(0))?, out),
        Operation::Softmax(axis) => rows::softmax(work, x.at(), Axis::new(operation, *axis, shape(0))?, out),
        Operation::Sort(axis) => sort::sort(work, x.at(), Axis::new(operation, *axis, shape(0))?, out),
        Operation::Concat(axis) => {
            let [a, b] = [0, 1].map(|i| Axis::new(operation, *axis, shape(i)));
            let (a, b) = (a?, b?);
            map::join(work, [(x.at(), a.len * a.inner), (at(1), b.len * b.inner)], (out, result.count()))
        }
        Operation::Gather | Operation::Embedding => {
            inputs[1].check_indices(operation, shape(0)[0])?;
            map::gather(work, (x.at(), at(1), out), (shape(0)[0], shape(0)[1]), result.count())
        }
        Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => {
            for list in &inputs[1..] {
                list.check_indices(operation, shape(0)[0])?;
            }
            let sizes = (shape(0)[0], shape(0)[1], inputs[1].count());
            scatter::scatter(work, operation, [x.at(), at(1), at(2)], sizes, &result.memory)
        }
        Operation::LayerNorm => rows::norm(work, rows::Norm::Layer, [x.at(), 0, 0, 0], shape(0), out),
        Operation::AddLayerNorm => rows::norm(work, rows::Norm::AddLayer, [x.at(), at(1), at(2), at(3)], shape(0), out),
        Operation::RmsNorm => rows::norm(work, rows::Norm::RootMeanSquare, [x.at(), 0, at(1), 0], shape(0), out),
        Operation::Rope => map::rope(work, x.at(), shape(0), out),
        Operation::MeanPoolNormalize => {
            let (made, _) = batch(inputs[1], shape(0)[0])?;
            let offsets = made.as_ref().or(inputs[1].offsets.as_ref()).map_or(0, Memory::address);
            reduce::pool(work, (x.at(), offsets, out), (result.shape[0], shape(0)[1]))
        }
        Operation::Conv1d | Operation::Conv2d => {
            convolve::convolve(work, (x.at(), at(1), out), Convolution::new(shape(0), shape(1)))
        }
        Operation::MatMul => {
            let operands = product::Operands { a: x.at(), b: at(1), bias: None, gelu: false, out };
            product::multiply(work, operands, Product::new(shape(0), shape(1)))
        }
        Operation::Linear | Operation::PackedQkv | Operation::LinearGelu => {
            let gelu = *operation == Operation::LinearGelu;
            let operands = product::Operands { a: x.at(), b: at(1), bias: Some(at(2)), gelu, out };
            product::multiply(work, operands, Product::new(shape(0), shape(1)))
        }
        Operation::LinearInt8 | Operation::LinearQ4 => {
            let fitting = inputs[1].weights.as_ref().filter(|weights| Some(weights.bits) == quantize::bits(operation));
            let what = || format!("{operation} over weights that were not uploaded for it");
            let weights = fitting.ok_or_else(|| unsupported(what()))?;
            let widened = weights.widen(work)?;
            let operands = product::Operands { a: x.at(), b: widened.address(), bias: Some(at(2)), gelu: false, out };
            product::multiply(work, operands, Product::new(shape(0), shape(1)))
        }
        Operation::ScaledDotProductAttention => {
            attend::heads(work, [x.at(), at(1), at(2), out], (shape(0), shape(1)[2]), attend::Seen::Before)
        }
        Operation::SelfAttention => {
            if inputs[3].host.is_some() {
                shapes::lengths(operation, &inputs[3].integers()?, shape(0)[2])?;
            }
            attend::heads(work, [x.at(), at(1), at(2), out], (shape(0), shape(0)[2]), attend::Seen::Lengths(at(3)))
        }
        Operation::RaggedAttention(heads) => {
            let (made, longest) = batch(inputs[1], shape(0)[0])?;
            let offsets = made.as_ref().or(inputs[1].offsets.as_ref()).map_or(0, Memory::address);
            attend::ragged(work, (x.at(), offsets, out), (shape(1)[0], longest), (shape(0)[1] / 3, *heads))
        }
    }
}
