//! The contract of [`Backend`], kept by noting what is asked and running it when values are read.

use std::sync::Arc;

use mlxt_backend::operations::{self, HostArray, Operations};
use mlxt_backend::{
    Activation, Attention, Backend, DeviceInfo, Error, HostTensor, Lookup, MatrixSource, NormSource, Reduction,
    RelativeShape, RelativeSource, Result, Rotation, Segments, Shaped, check,
};

use crate::device::{Device, Held};
use crate::node::{Given, Tensor};
use crate::plan::Operation;
use crate::programs::Programs;
use crate::trace::Trace;

/// A device as a backend.
pub struct Lazy<D: Device> {
    device: D,
    programs: Programs<D>,
}

/// Weights on the device, and their size.
pub struct Weights<W> {
    device: Arc<W>,
    rows: usize,
    cols: usize,
}

impl<W> Weights<W> {
    fn new(weights: W, (rows, cols): (usize, usize)) -> Self {
        Self { device: Arc::new(weights), rows, cols }
    }
}

impl<W> Shaped for Weights<W> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
}

/// A relative term of attention on the device.
pub struct Relative<R> {
    term: Arc<R>,
    shape: RelativeShape,
}

impl<D: Device> Lazy<D> {
    /// A backend of that device.
    pub fn new(device: D) -> Self {
        Self { device, programs: Programs::new() }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The values of a tensor on the device, computed now if they were not yet.
    fn computed(&self, x: &Tensor<D>) -> Result<Held<D::Buffer>> {
        let (rows, cols) = (x.rows(), x.cols());
        if let Some(buffer) = x.operand().outcome().buffer.get() {
            return Ok(Held { buffer: Arc::clone(buffer), rows, cols });
        }
        let trace = Trace::new(&self.device, x.operand());
        let program = self.programs.get(&self.device, &trace)?;
        let buffers = self.device.run(&program, &trace.inputs)?;
        for (outcome, buffer) in trace.outputs.iter().zip(buffers) {
            // Another thread may have computed the same meanwhile: one of both is kept.
            let _ = outcome.buffer.set(Arc::new(buffer));
        }
        let lacking = || Error::Device { backend: "lazy", message: "a program gave fewer results than asked".into() };
        let buffer = Arc::clone(x.operand().outcome().buffer.get().ok_or_else(lacking)?);
        Ok(Held { buffer, rows, cols })
    }
}

impl<D: Device> Backend for Lazy<D> {
    type Tensor = Tensor<D>;
    type Matrix = Weights<D::Matrix>;
    type Norm = Weights<D::Norm>;
    type Table = Weights<D::Table>;
    type Relative = Relative<D::Relative>;
    type Layout = Segments;

    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn matrix(&self, source: MatrixSource) -> Result<Self::Matrix> {
        let shape = check::matrix(&source)?;
        Ok(Weights::new(self.device.matrix(source)?, shape))
    }

    fn table(&self, tensor: HostTensor) -> Result<Self::Table> {
        let shape = check::table(&tensor)?;
        Ok(Weights::new(self.device.table(tensor)?, shape))
    }

    fn norm_weights(&self, source: NormSource) -> Result<Self::Norm> {
        let cols = check::norm_weights(&source)?;
        Ok(Weights::new(self.device.norm_weights(source)?, (1, cols)))
    }

    fn relative(&self, source: RelativeSource<Tensor<D>>) -> Result<Self::Relative> {
        let shape = check::relative(&source)?;
        let held = |part: Option<Tensor<D>>| part.map(|x| self.computed(&x)).transpose();
        let RelativeSource { buckets, keys, queries, bias } = source;
        let source = RelativeSource { buckets, keys: held(keys)?, queries: held(queries)?, bias: held(bias)? };
        Ok(Relative { term: Arc::new(self.device.relative(source)?), shape })
    }

    fn layout(&self, segments: &Segments) -> Result<Segments> {
        Ok(segments.clone())
    }

    fn write(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Tensor<D>> {
        check::write(rows, cols, values)?;
        let [x] = Tensor::note(Operation::Input(Given::Values(values.into(), cols)), [None, None], (rows, cols));
        Ok(x)
    }

    fn read(&self, x: &Tensor<D>) -> Result<Vec<f32>> {
        let Held { buffer, rows, cols } = self.computed(x)?;
        self.device.read(&buffer, rows, cols)
    }

    fn embed(&self, lookups: &[Lookup<'_, Self::Table>]) -> Result<Tensor<D>> {
        let shape = check::embed(lookups)?;
        let note = |l: &Lookup<'_, Self::Table>| (Arc::clone(&l.table.device), ids(l.ids));
        let [x] = Tensor::note(Operation::Embed(lookups.iter().map(note).collect()), [None, None], shape);
        Ok(x)
    }

    fn linear(&self, x: &Tensor<D>, w: &Self::Matrix, activation: Activation) -> Result<Tensor<D>> {
        check::size("linear", "inputs", w.cols, x.cols())?;
        let operation = Operation::Linear { x: 0, w: Arc::clone(&w.device), activation };
        let [y] = Tensor::note(operation, [Some(x), None], (x.rows(), w.rows));
        Ok(y)
    }

    fn gate(&self, x: &Tensor<D>, activation: Activation) -> Result<Tensor<D>> {
        let cols = check::gate(x)?;
        let [y] = Tensor::note(Operation::Gate { x: 0, activation }, [Some(x), None], (x.rows(), cols));
        Ok(y)
    }

    fn norm(&self, x: Tensor<D>, residual: Option<&Tensor<D>>, n: &Self::Norm) -> Result<Tensor<D>> {
        check::norm(&x, residual, n.cols)?;
        let operation = Operation::Norm { x: 0, residual: residual.map(|_| 1), n: Arc::clone(&n.device) };
        let [y] = Tensor::note(operation, [Some(&x), residual], (x.rows(), x.cols()));
        Ok(y)
    }

    fn add_norm(&self, x: Tensor<D>, residual: &Tensor<D>, n: &Self::Norm) -> Result<(Tensor<D>, Tensor<D>)> {
        check::norm(&x, Some(residual), n.cols)?;
        let operation = Operation::AddNorm { x: 0, residual: 1, n: Arc::clone(&n.device) };
        let [sum, normed] = Tensor::note(operation, [Some(&x), Some(residual)], (x.rows(), x.cols()));
        Ok((sum, normed))
    }

    fn rotate(&self, qkv: Tensor<D>, layout: &Segments, rotation: &Rotation) -> Result<Tensor<D>> {
        check::rotate(&qkv, layout, rotation)?;
        let operation = Operation::Rotate { qkv: 0, layout: Given::Segments(layout.clone()), rotation: *rotation };
        let [y] = Tensor::note(operation, [Some(&qkv), None], (qkv.rows(), qkv.cols()));
        Ok(y)
    }

    fn attention(
        &self,
        qkv: &Tensor<D>,
        layout: &Segments,
        attention: &Attention,
        relative: Option<&Self::Relative>,
    ) -> Result<Tensor<D>> {
        let hidden = check::attention(qkv, layout, attention, relative.map(|r| r.shape))?;
        let operation = Operation::Attention {
            qkv: 0,
            layout: Given::Segments(layout.clone()),
            attention: *attention,
            relative: relative.map(|r| Arc::clone(&r.term)),
        };
        let [y] = Tensor::note(operation, [Some(qkv), None], (qkv.rows(), hidden));
        Ok(y)
    }

    fn take_rows(&self, x: &Tensor<D>, indices: &[u32]) -> Result<Tensor<D>> {
        check::take_rows(x, indices)?;
        let operation = Operation::TakeRows { x: 0, indices: ids(indices) };
        let [y] = Tensor::note(operation, [Some(x), None], (indices.len(), x.cols()));
        Ok(y)
    }

    fn reduce_rows(&self, x: &Tensor<D>, layout: &Segments, reduction: Reduction) -> Result<Tensor<D>> {
        check::size("reduce rows", "rows of the layout", layout.rows(), x.rows())?;
        let operation = Operation::ReduceRows { x: 0, layout: Given::Segments(layout.clone()), reduction };
        let [y] = Tensor::note(operation, [Some(x), None], (layout.count(), x.cols()));
        Ok(y)
    }
}

fn ids(ids: &[u32]) -> Given {
    Given::Ids(ids.into())
}

/// Single operations are the device's own affair: each is timed by itself.
impl<D: Device + Operations> Operations for Lazy<D> {
    type Array = D::Array;

    fn upload(&self, operation: &operations::Operation, position: usize, array: &HostArray) -> Result<D::Array> {
        self.device.upload(operation, position, array)
    }

    fn run(&self, operation: &operations::Operation, inputs: &[&D::Array]) -> Result<D::Array> {
        Operations::run(&self.device, operation, inputs)
    }

    fn wait(&self, array: &D::Array) -> Result<()> {
        self.device.wait(array)
    }

    fn download(&self, array: &D::Array) -> Result<HostArray> {
        self.device.download(array)
    }
}
