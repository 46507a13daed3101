//! A device that runs plans with the reference's operations, one after the other, and looks at every number a plan tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mlxt_backend::{
    Backend, DeviceInfo, Error, HostTensor, Lookup, MatrixSource, NormSource, Reference, RelativeSource, Result,
    Segments, Shaped,
};

use crate::device::{Device, Held, Input};
use crate::plan::{InputId, InputKind, Operation, Plan, Rows, SegmentsRoom, ValueId};

pub(super) type Array = <Reference as Backend>::Tensor;

/// Counts what it is asked to do.
#[derive(Default)]
pub(super) struct Interpreter {
    pub(super) compiled: AtomicUsize,
    pub(super) ran: AtomicUsize,
    pub(super) steps: AtomicUsize,
    /// Refuses to run anything.
    pub(super) broken: AtomicBool,
}

impl Device for Interpreter {
    type Buffer = Array;
    type Matrix = <Reference as Backend>::Matrix;
    type Norm = <Reference as Backend>::Norm;
    type Table = <Reference as Backend>::Table;
    type Relative = <Reference as Backend>::Relative;
    type Program = Arc<Plan<Self>>;

    fn info(&self) -> DeviceInfo {
        DeviceInfo { device: "interpreter".into(), ..Reference.info() }
    }

    fn matrix(&self, source: MatrixSource) -> Result<Self::Matrix> {
        Reference.matrix(source)
    }

    fn table(&self, tensor: HostTensor) -> Result<Self::Table> {
        Reference.table(tensor)
    }

    fn norm_weights(&self, source: NormSource) -> Result<Self::Norm> {
        Reference.norm_weights(source)
    }

    fn relative(&self, source: RelativeSource<Held<Array>>) -> Result<Self::Relative> {
        let copied = |part: Option<Held<Array>>| part.map(|held| copy(&held.buffer)).transpose();
        let RelativeSource { buckets, keys, queries, bias } = source;
        Reference.relative(RelativeSource {
            buckets,
            keys: copied(keys)?,
            queries: copied(queries)?,
            bias: copied(bias)?,
        })
    }

    fn room(&self, rows: usize) -> usize {
        rows.next_multiple_of(8)
    }

    fn segments_room(&self, segments: &Segments) -> SegmentsRoom {
        let [rows, sequences, longest] = [segments.rows(), segments.count(), segments.longest()].map(|n| self.room(n));
        SegmentsRoom { rows, sequences, longest }
    }

    fn compile(&self, plan: Arc<Plan<Self>>) -> Result<Self::Program> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Ok(plan)
    }

    fn run(&self, plan: &Arc<Plan<Self>>, inputs: &[Input<'_, Array>]) -> Result<Vec<Array>> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::Device { backend: "interpreter", message: "broken".into() });
        }
        self.ran.fetch_add(1, Ordering::Relaxed);
        self.steps.fetch_add(plan.steps.len(), Ordering::Relaxed);
        assert_eq!(plan.inputs.len(), inputs.len());
        for (&kind, input) in plan.inputs.iter().zip(inputs) {
            fits(kind, input);
        }
        let ids = |InputId(i): InputId| match inputs[i] {
            Input::Ids(ids) => ids,
            other => panic!("ids expected, found {other:?}"),
        };
        let segments = |InputId(i): InputId| match inputs[i] {
            Input::Segments(segments) => segments,
            other => panic!("segments expected, found {other:?}"),
        };
        let mut values: Vec<Option<Array>> = plan.values.iter().map(|_| None).collect();
        for step in &plan.steps {
            let value = |id: &ValueId| values[id.0].as_ref().expect("computed before it is used");
            let mut second = None;
            let first = match &step.operation {
                Operation::Input(InputId(i)) => match (plan.inputs[*i], inputs[*i]) {
                    (InputKind::Values { cols, .. }, Input::Values(v)) => Reference.write(v.len() / cols, cols, v)?,
                    (InputKind::Buffer { .. }, Input::Buffer(buffer, _)) => copy(buffer)?,
                    other => panic!("not a value: {other:?}"),
                },
                Operation::Embed(lookups) => {
                    let lookups: Vec<_> =
                        lookups.iter().map(|(table, i)| Lookup { table: &**table, ids: ids(*i) }).collect();
                    Reference.embed(&lookups)?
                }
                Operation::Linear { x, w, activation } => Reference.linear(value(x), w, *activation)?,
                Operation::Gate { x, activation } => Reference.gate(value(x), *activation)?,
                Operation::Norm { x, residual, n } => {
                    Reference.norm(copy(value(x))?, residual.as_ref().map(value), n)?
                }
                Operation::AddNorm { x, residual, n } => {
                    let (sum, normed) = Reference.add_norm(copy(value(x))?, value(residual), n)?;
                    second = Some(normed);
                    sum
                }
                Operation::Rotate { qkv, layout, rotation } => {
                    let layout = Reference.layout(segments(*layout))?;
                    Reference.rotate(copy(value(qkv))?, &layout, rotation)?
                }
                Operation::Attention { qkv, layout, attention, relative } => {
                    let layout = Reference.layout(segments(*layout))?;
                    Reference.attention(value(qkv), &layout, attention, relative.as_deref())?
                }
                Operation::TakeRows { x, indices } => Reference.take_rows(value(x), ids(*indices))?,
                Operation::ReduceRows { x, layout, reduction } => {
                    Reference.reduce_rows(value(x), &Reference.layout(segments(*layout))?, *reduction)?
                }
            };
            for (offset, result) in std::iter::once(first).chain(second).enumerate() {
                let said = &plan.values[step.result.0 + offset];
                let rows = match said.rows {
                    Rows::SequencesOf(input) => segments(input).count(),
                    Rows::Of(InputId(i)) => rows(plan.inputs[i], &inputs[i]),
                };
                assert_eq!((rows, said.cols), (result.rows(), result.cols()));
                assert!(said.room == self.room(rows), "{said:?}");
                values[step.result.0 + offset] = Some(result);
            }
        }
        plan.outputs.iter().map(|id| copy(values[id.0].as_ref().expect("every output is computed"))).collect()
    }

    fn read(&self, buffer: &Array, rows: usize, cols: usize) -> Result<Vec<f32>> {
        assert_eq!((rows, cols), (buffer.rows(), buffer.cols()));
        Reference.read(buffer)
    }
}

fn rows(kind: InputKind, input: &Input<'_, Array>) -> usize {
    match (kind, input) {
        (InputKind::Ids { .. }, Input::Ids(ids)) => ids.len(),
        (InputKind::Segments(_), Input::Segments(segments)) => segments.rows(),
        (InputKind::Values { cols, .. }, Input::Values(values)) => values.len() / cols,
        (InputKind::Buffer { .. }, Input::Buffer(_, rows)) => *rows,
        (kind, input) => panic!("{input:?} for {kind:?}"),
    }
}

fn fits(kind: InputKind, input: &Input<'_, Array>) {
    let rows = rows(kind, input);
    let (InputKind::Ids { room }
    | InputKind::Segments(SegmentsRoom { rows: room, .. })
    | InputKind::Values { room, .. }
    | InputKind::Buffer { room, .. }) = kind;
    assert!(0 < rows && rows <= room, "{rows} rows for {kind:?}");
}

fn copy(x: &Array) -> Result<Array> {
    Reference.write(x.rows(), x.cols(), &Reference.read(x)?)
}
