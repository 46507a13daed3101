//! The layer by itself: a device that runs plans with the reference's operations, one after the other, and looks at
//! every number a plan tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlxt_backend::{
    Activation, Attention, Backend, DeviceInfo, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind,
    NormSource, Precision, Reduction, Reference, RelativeSource, Result, Segments, Shaped, conformance,
};

use crate::device::{Device, Held, Input};
use crate::plan::{InputId, InputKind, Operation, Plan, Rows, SegmentsRoom};
use crate::{Lazy, Tensor};

type Array = <Reference as Backend>::Tensor;

/// Counts what it is asked to do.
#[derive(Default)]
struct Interpreter {
    compiled: AtomicUsize,
    ran: AtomicUsize,
    steps: AtomicUsize,
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
            let value = |id: &crate::plan::ValueId| values[id.0].as_ref().expect("computed before it is used");
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

fn counted(lazy: &Lazy<Interpreter>) -> (usize, usize, usize) {
    let Interpreter { compiled, ran, steps } = lazy.device();
    (compiled.load(Ordering::Relaxed), ran.load(Ordering::Relaxed), steps.load(Ordering::Relaxed))
}

/// A small model: words, a layer of attention and one of products.
struct Model<B: Backend> {
    words: B::Table,
    qkv: B::Matrix,
    norm: B::Norm,
}

const HIDDEN: usize = 4;

impl<B: Backend> Model<B> {
    fn new(backend: &B) -> Self {
        let tensor = |shape: &[usize], seed: usize| {
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|i: usize| ((i * 7 + seed) % 11) as f32 / 11.0 - 0.5).collect();
            HostTensor::from_f32(shape, &values).unwrap()
        };
        let part = LinearPart { weight: tensor(&[3 * HIDDEN, HIDDEN], 1).into(), bias: Some(tensor(&[3 * HIDDEN], 2)) };
        let norm = NormSource { kind: NormKind::LayerNorm, gain: tensor(&[HIDDEN], 3), shift: None, eps: 1e-5 };
        Self {
            words: backend.table(tensor(&[10, HIDDEN], 4)).unwrap(),
            qkv: backend.matrix(MatrixSource::new(vec![part], Precision::F32)).unwrap(),
            norm: backend.norm_weights(norm).unwrap(),
        }
    }

    /// The hidden states and the mean of each sequence.
    fn forward(&self, backend: &B, ids: &[u32], lengths: &[usize]) -> (B::Tensor, B::Tensor) {
        let layout = backend.layout(&Segments::from_lengths(lengths).unwrap()).unwrap();
        let x = backend.embed(&[Lookup { table: &self.words, ids }]).unwrap();
        let qkv = backend.linear(&x, &self.qkv, Activation::Identity).unwrap();
        let attention = Attention { heads: 2, head_size: 2, scale: 0.7, mask: Mask::Full };
        let y = backend.attention(&qkv, &layout, &attention, None).unwrap();
        let (sum, normed) = backend.add_norm(y, &x, &self.norm).unwrap();
        let hidden = backend.norm(normed, Some(&sum), &self.norm).unwrap();
        let mean = backend.reduce_rows(&hidden, &layout, Reduction::Mean).unwrap();
        (hidden, mean)
    }
}

#[test]
fn it_conforms() {
    let lazy = Lazy::new(Interpreter::default());
    let mut cases = conformance::cases();
    cases.retain(|case| !case.timed);
    let report = conformance::check_cases(&lazy, Precision::F32, cases);
    assert!(report.passed(), "{report}");
    assert!(report.closest.iter().all(|(_, share)| *share == 0.0), "{report}");
}

#[test]
fn batches_of_about_the_same_size_share_a_program() {
    let lazy = Lazy::new(Interpreter::default());
    let (model, reference) = (Model::new(&lazy), Model::new(&Reference));
    for (lengths, programs) in [(vec![3, 2], 1), (vec![1, 1, 1], 1), (vec![8], 1), (vec![9], 2), (vec![4, 1], 2)] {
        let ids: Vec<u32> = (0..lengths.iter().sum::<usize>() as u32).map(|i| i * 3 % 10).collect();
        let mean = model.forward(&lazy, &ids, &lengths).1;
        let expected = reference.forward(&Reference, &ids, &lengths).1;
        assert_eq!(lazy.read(&mean).unwrap(), Reference.read(&expected).unwrap(), "{lengths:?}");
        assert_eq!(counted(&lazy).0, programs, "{lengths:?}");
    }
}

#[test]
fn what_is_still_held_is_computed_once() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let (hidden, mean) = model.forward(&lazy, &[1, 2, 3], &[2, 1]);
    assert_eq!(counted(&lazy), (0, 0, 0), "nothing runs before values are asked for");
    lazy.read(&mean).unwrap();
    assert_eq!(counted(&lazy), (1, 1, 6));
    lazy.read(&hidden).unwrap();
    lazy.read(&mean).unwrap();
    assert_eq!(counted(&lazy), (1, 1, 6), "both came out of one run");
    let first = lazy.take_rows(&hidden, &[0]).unwrap();
    lazy.read(&first).unwrap();
    assert_eq!(counted(&lazy), (2, 2, 8), "what follows starts from the values there are");

    drop((hidden, mean, first));
    let (_, mean) = model.forward(&lazy, &[1, 2, 3], &[2, 1]);
    lazy.read(&mean).unwrap();
    assert_eq!(counted(&lazy).0, 3, "one result fewer is another program");
}

#[test]
fn one_of_two_results_may_be_held() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let write = |lazy: &Lazy<_>| lazy.write(1, HIDDEN, &[1.0, 2.0, 4.0, 8.0]).unwrap();
    let (sum, normed) = lazy.add_norm(write(&lazy), &write(&lazy), &model.norm).unwrap();
    let kept = lazy.norm(normed, None, &model.norm).unwrap();
    assert_eq!(lazy.read(&sum).unwrap(), [2.0, 4.0, 8.0, 16.0]);
    let again = lazy.norm(sum, None, &model.norm).unwrap();
    assert_eq!(lazy.read(&again).unwrap().len(), HIDDEN);
    let expected = {
        let model = Model::<Reference>::new(&Reference);
        let write = || Reference.write(1, HIDDEN, &[1.0, 2.0, 4.0, 8.0]).unwrap();
        let (_, normed) = Reference.add_norm(write(), &write(), &model.norm).unwrap();
        Reference.read(&Reference.norm(normed, None, &model.norm).unwrap()).unwrap()
    };
    assert_eq!(lazy.read(&kept).unwrap(), expected);
}

#[test]
fn other_weights_are_another_program() {
    let lazy = Lazy::new(Interpreter::default());
    for programs in 1..=3 {
        let mean = Model::new(&lazy).forward(&lazy, &[1, 2, 3], &[2, 1]).1;
        lazy.read(&mean).unwrap();
        assert_eq!(counted(&lazy).0, programs);
    }
}

#[test]
fn other_settings_are_another_program() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let run = |scale: f32, mask: Mask, activation: Activation, reduction: Reduction| {
        let layout = lazy.layout(&Segments::from_lengths(&[2, 1]).unwrap()).unwrap();
        let x = lazy.embed(&[Lookup { table: &model.words, ids: &[1, 2, 3] }]).unwrap();
        let qkv = lazy.linear(&x, &model.qkv, activation).unwrap();
        let attention = Attention { heads: 2, head_size: 2, scale, mask };
        let y = lazy.attention(&qkv, &layout, &attention, None).unwrap();
        lazy.read(&lazy.reduce_rows(&y, &layout, reduction).unwrap()).unwrap();
        counted(&lazy).0
    };
    let (plain, mean) = (Activation::Identity, Reduction::Mean);
    for _ in 0..2 {
        assert_eq!(run(0.5, Mask::Full, plain, mean), 1);
    }
    assert_eq!(run(0.25, Mask::Full, plain, mean), 2);
    assert_eq!(run(0.5, Mask::Window { radius: 1 }, plain, mean), 3);
    assert_eq!(run(0.5, Mask::Window { radius: 2 }, plain, mean), 4);
    assert_eq!(run(0.5, Mask::Full, Activation::Tanh, mean), 5);
    assert_eq!(run(0.5, Mask::Full, plain, Reduction::Max), 6);
    assert_eq!(run(0.25, Mask::Full, plain, mean), 6, "all of them are kept");
}

#[test]
fn programs_used_longest_ago_make_way() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let run = |rows: usize| lazy.read(&model.forward(&lazy, &vec![0; rows], &[rows]).1).unwrap();
    (1..=129).for_each(|n| drop(run(8 * n)));
    assert_eq!(counted(&lazy).0, 129);
    run(16);
    assert_eq!(counted(&lazy).0, 129);
    run(8);
    assert_eq!(counted(&lazy).0, 130, "the first of all was the oldest");
}

#[test]
fn a_long_row_of_operations_runs_and_is_let_go() {
    let lazy = Lazy::new(Interpreter::default());
    let mut x: Tensor<Interpreter> = lazy.write(1, 2, &[1.0, 2.0]).unwrap();
    for _ in 0..100_000 {
        x = lazy.take_rows(&x, &[0]).unwrap();
    }
    assert_eq!(lazy.read(&x).unwrap(), [1.0, 2.0]);
}

#[test]
fn threads_do_not_disturb_each_other() {
    let lazy = Lazy::new(Interpreter::default());
    let (model, reference) = (Model::new(&lazy), Model::new(&Reference));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (lazy, model, reference) = (&lazy, &model, &reference);
            scope.spawn(move || {
                for round in 0..20 {
                    let ids: Vec<u32> = (0..5).map(|i| (i * thread + round) % 10).collect();
                    let mean = model.forward(lazy, &ids, &[2, 3]).1;
                    let expected = reference.forward(&Reference, &ids, &[2, 3]).1;
                    assert_eq!(lazy.read(&mean).unwrap(), Reference.read(&expected).unwrap());
                }
            });
        }
    });
    assert_eq!(counted(&lazy).0, 1);
}
