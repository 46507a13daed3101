//! The contract of [`Backend`], kept by noting what is asked and running it when values are read.

use std::sync::{Arc, MutexGuard};

use mlxt_backend::operations::{self, HostArray, Operations};
use mlxt_backend::{
    Activation, Attention, Backend, DeviceInfo, Error, HostTensor, Lookup, MatrixSource, NormSource, Reduction,
    RelativeShape, RelativeSource, Result, Rotation, Segments, Shaped, check,
};

use crate::asked::Asked;
use crate::device::{Device, Held};
use crate::plan::ValueId;
use crate::programs::Programs;
use crate::recording::{Given, Inputs, MOST, Recording, State, Tensor};
use crate::trace::outputs;

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

    /// Notes an operation of `operands` that gives `[rows, cols]`. What it is, is said in the numbers that they and what
    /// it is given have in its recording.
    fn note<'a, const RESULTS: usize>(
        &self,
        operands: [Option<&Tensor<D>>; MOST],
        (rows, cols): (usize, usize),
        asked: impl FnOnce([ValueId; MOST], &mut Inputs<D::Buffer>) -> Asked<'a, D>,
    ) -> [Tensor<D>; RESULTS] {
        let note = |recording: &Arc<Recording<D>>, mut state: MutexGuard<'_, State<D>>, operands| {
            let asked = asked(operands, &mut state.given);
            let ValueId(first) = state.note(&self.programs, &asked, cols, (RESULTS, true));
            drop(state);
            let result = |i| Tensor { recording: Arc::clone(recording), value: ValueId(first + i), rows, cols };
            std::array::from_fn(result)
        };
        // Mostly operands are of one recording, and none of them was computed.
        if let [Some(Tensor { recording, .. }), other] = operands
            && other.is_none_or(|x| Arc::ptr_eq(&x.recording, recording))
        {
            let state = recording.lock();
            if operands.iter().flatten().any(|x| !state.is_computed(x.value)) {
                return note(recording, state, operands.map(|x| x.map_or(ValueId(0), |x| x.value)));
            }
        }
        let (recording, operands) = self.gather(operands);
        note(&recording, recording.lock(), operands)
    }

    /// The recording that goes on, and the numbers of operands in it. What was computed is where a new one begins: what
    /// came before would be kept as long as what follows.
    fn gather(&self, operands: [Option<&Tensor<D>>; MOST]) -> (Arc<Recording<D>>, [ValueId; MOST]) {
        let length = |x: &&&Tensor<D>| {
            let state = x.recording.lock();
            if state.is_computed(x.value) { 0 } else { state.steps() }
        };
        let longest = operands.iter().flatten().max_by_key(length).filter(|x| length(x) > 0);
        let recording = longest.map_or_else(Recording::new, |x| Arc::clone(&x.recording));
        let number = |x: &Tensor<D>| {
            if Arc::ptr_eq(&x.recording, &recording) {
                return x.value;
            }
            let known = recording.lock().copied(x);
            known.unwrap_or_else(|| {
                let excerpt = x.recording.lock().excerpt(x.value);
                recording.lock().append(&self.programs, x, excerpt)
            })
        };
        let numbers = operands.map(|x| x.map_or(ValueId(0), number));
        (recording, numbers)
    }

    /// The values of a tensor on the device, computed now if they were not yet.
    fn computed(&self, x: &Tensor<D>) -> Result<Held<D::Buffer>> {
        let (rows, cols) = (x.rows(), x.cols());
        let mut state = x.recording.lock();
        if !state.is_computed(x.value) {
            let made = self.programs.get(&self.device, &mut state, x.value)?;
            let inputs: Vec<_> = made.feeds.iter().filter_map(|&feed| state.input(feed)).collect();
            let buffers = self.device.run(&made.program, &inputs)?;
            drop(inputs);
            for (output, buffer) in outputs(&made.roles).zip(buffers) {
                state.outcomes[output.0].buffer = Some(Arc::new(buffer));
            }
        }
        let lacking = || Error::Device { backend: "lazy", message: "a program gave fewer results than asked".into() };
        let buffer = Arc::clone(state.outcomes[x.value.0].buffer.as_ref().ok_or_else(lacking)?);
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
        let given = Given::Values(values.to_vec(), cols);
        let [x] = self.note([None, None], (rows, cols), |_, inputs| Asked::Input(inputs.add(given)));
        Ok(x)
    }

    fn read(&self, x: &Tensor<D>) -> Result<Vec<f32>> {
        let Held { buffer, rows, cols } = self.computed(x)?;
        self.device.read(&buffer, rows, cols)
    }

    fn embed(&self, lookups: &[Lookup<'_, Self::Table>]) -> Result<Tensor<D>> {
        let shape = check::embed(lookups)?;
        let [x] = self.note([None, None], shape, |_, inputs| {
            Asked::Embed(lookups.iter().map(|l| (&l.table.device, inputs.ids(l.ids))).collect())
        });
        Ok(x)
    }

    fn linear(&self, x: &Tensor<D>, w: &Self::Matrix, activation: Activation) -> Result<Tensor<D>> {
        check::size("linear", "inputs", w.cols, x.cols())?;
        let [y] =
            self.note([Some(x), None], (x.rows(), w.rows), |[x, _], _| Asked::Linear { x, w: &w.device, activation });
        Ok(y)
    }

    fn gate(&self, x: &Tensor<D>, activation: Activation) -> Result<Tensor<D>> {
        let cols = check::gate(x)?;
        let [y] = self.note([Some(x), None], (x.rows(), cols), |[x, _], _| Asked::Gate { x, activation });
        Ok(y)
    }

    fn norm(&self, x: Tensor<D>, residual: Option<&Tensor<D>>, n: &Self::Norm) -> Result<Tensor<D>> {
        check::norm(&x, residual, n.cols)?;
        let [y] = self.note([Some(&x), residual], (x.rows(), x.cols()), |[x, r], _| Asked::Norm {
            x,
            residual: residual.map(|_| r),
            n: &n.device,
        });
        Ok(y)
    }

    fn add_norm(&self, x: Tensor<D>, residual: &Tensor<D>, n: &Self::Norm) -> Result<(Tensor<D>, Tensor<D>)> {
        check::norm(&x, Some(residual), n.cols)?;
        let shape = (x.rows(), x.cols());
        let add_norm = |[x, residual]: [ValueId; MOST], _: &mut _| Asked::AddNorm { x, residual, n: &n.device };
        let [sum, normed] = self.note([Some(&x), Some(residual)], shape, add_norm);
        Ok((sum, normed))
    }

    fn rotate(&self, qkv: Tensor<D>, layout: &Segments, rotation: &Rotation) -> Result<Tensor<D>> {
        check::rotate(&qkv, layout, rotation)?;
        let [y] = self.note([Some(&qkv), None], (qkv.rows(), qkv.cols()), |[qkv, _], inputs| Asked::Rotate {
            qkv,
            layout: inputs.segments(layout),
            rotation: *rotation,
        });
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
        let [y] = self.note([Some(qkv), None], (qkv.rows(), hidden), |[qkv, _], inputs| Asked::Attention {
            qkv,
            layout: inputs.segments(layout),
            attention: *attention,
            relative: relative.map(|r| &r.term),
        });
        Ok(y)
    }

    fn take_rows(&self, x: &Tensor<D>, indices: &[u32]) -> Result<Tensor<D>> {
        check::take_rows(x, indices)?;
        let shape = (indices.len(), x.cols());
        let [y] =
            self.note([Some(x), None], shape, |[x, _], inputs| Asked::TakeRows { x, indices: inputs.ids(indices) });
        Ok(y)
    }

    fn reduce_rows(&self, x: &Tensor<D>, layout: &Segments, reduction: Reduction) -> Result<Tensor<D>> {
        check::size("reduce rows", "rows of the layout", layout.rows(), x.rows())?;
        let [y] = self.note([Some(x), None], (layout.count(), x.cols()), |[x, _], inputs| Asked::ReduceRows {
            x,
            layout: inputs.segments(layout),
            reduction,
        });
        Ok(y)
    }
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
