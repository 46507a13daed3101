//! The layer by itself, over a device that looks at what it is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlxt_backend::conformance::random::Random;
use mlxt_backend::{
    Activation, Attention, Backend, Error, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind, NormSource,
    Precision, Reduction, Reference, Segments, conformance,
};

use crate::{Lazy, Tensor};

use interpreter::{Array, Interpreter};

mod interpreter;

fn counted(lazy: &Lazy<Interpreter>) -> (usize, usize, usize) {
    let Interpreter { compiled, ran, steps, .. } = lazy.device();
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
fn as_many_results_of_other_operations_are_another_program() {
    let lazy = Lazy::new(Interpreter::default());
    let norm = Model::new(&lazy).norm;
    let write = || lazy.write(1, HIDDEN, &[1.0, 2.0, 4.0, 8.0]).unwrap();
    let mut x = write();
    for _ in 0..3 {
        x = lazy.norm(x, None, &norm).unwrap();
    }
    let plain = lazy.read(&x).unwrap();
    let (sum, normed) = lazy.add_norm(write(), &write(), &norm).unwrap();
    drop(sum);
    lazy.read(&normed).unwrap();
    let mut y = write();
    for _ in 0..3 {
        y = lazy.norm(y, None, &norm).unwrap();
    }
    assert_eq!(lazy.read(&y).unwrap(), plain);
    assert_eq!(counted(&lazy).0, 2);
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

/// What the reference gives for the mean of a forward.
fn expected(ids: &[u32], lengths: &[usize]) -> Vec<f32> {
    let (_, mean) = Model::new(&Reference).forward(&Reference, ids, lengths);
    Reference.read(&mean).unwrap()
}

#[test]
fn forwards_may_be_noted_side_by_side() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let batches: [(&[u32], &[usize]); 3] = [(&[1, 2, 3], &[2, 1]), (&[4; 20], &[20]), (&[7, 8], &[1, 1])];
    for round in 0..3 {
        let means = batches.map(|(ids, lengths)| model.forward(&lazy, ids, lengths).1);
        for i in [1, 2, 0] {
            assert_eq!(lazy.read(&means[i]).unwrap(), expected(batches[i].0, batches[i].1), "{round}, {i}");
        }
        assert_eq!(counted(&lazy).0, 2, "two of three batches share their room");
    }
}

#[test]
fn a_forward_may_leave_the_last_one_half_way() {
    /// Hidden states, and what follows `turn` operations of the first layer.
    fn run<B: Backend>(backend: &B, turn: usize) -> Vec<f32> {
        let model = Model::new(backend);
        [turn, 9, turn].map(|turn| leave(backend, &model, turn)).concat()
    }
    fn leave<B: Backend>(backend: &B, model: &Model<B>, turn: usize) -> Vec<f32> {
        let layout = backend.layout(&Segments::from_lengths(&[2, 1]).unwrap()).unwrap();
        let mut x = backend.embed(&[Lookup { table: &model.words, ids: &[1, 2, 3] }]).unwrap();
        for operation in 0..6 {
            x = if operation == turn {
                backend.take_rows(&x, &[2, 0, 1]).unwrap()
            } else {
                backend.norm(x, None, &model.norm).unwrap()
            };
        }
        backend.read(&backend.reduce_rows(&x, &layout, Reduction::Mean).unwrap()).unwrap()
    }
    for turn in 0..6 {
        let lazy = Lazy::new(Interpreter::default());
        assert_eq!(run(&lazy, turn), run(&Reference, turn), "{turn}");
        assert_eq!(counted(&lazy).0, 2, "{turn}: the second time is known, too");
    }
}

#[test]
fn less_of_a_known_forward_is_known_after_more_of_it() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    for round in 0..3 {
        let (hidden, mean) = model.forward(&lazy, &[1, 2, 3], &[2, 1]);
        drop(mean);
        lazy.read(&hidden).unwrap();
        drop(hidden);
        lazy.read(&model.forward(&lazy, &[1, 2, 3], &[2, 1]).1).unwrap();
        assert_eq!(counted(&lazy).0, 2, "{round}");
    }
}

#[test]
fn results_go_into_other_forwards() {
    fn run<B: Backend>(backend: &B) -> Vec<f32> {
        let model = Model::new(backend);
        let (first, mean) = model.forward(backend, &[1, 2, 3], &[2, 1]);
        let mut values = backend.read(&mean).unwrap();
        // One was computed, the other not.
        let (second, _) = model.forward(backend, &[4, 5, 6], &[1, 2]);
        let (sum, normed) = backend.add_norm(second, &first, &model.norm).unwrap();
        // None was, of two that know nothing of each other; one of them is used again.
        let (third, _) = model.forward(backend, &[7, 8, 9], &[3]);
        let both = backend.norm(normed, Some(&third), &model.norm).unwrap();
        values.extend(backend.read(&both).unwrap());
        values.extend(backend.read(&third).unwrap());
        // Both were, of two runs.
        let last = backend.norm(third, Some(&first), &model.norm).unwrap();
        let turned = backend.take_rows(&last, &[2, 1, 0]).unwrap();
        drop((last, first));
        values.extend(backend.read(&turned).unwrap());
        values.extend(backend.read(&sum).unwrap());
        values
    }
    let lazy = Lazy::new(Interpreter::default());
    assert_eq!(run(&lazy), run(&Reference));
}

#[test]
fn what_is_used_elsewhere_is_copied_once() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let mut x = model.forward(&lazy, &[1, 2, 3], &[2, 1]).0;
    let other = lazy.write(3, HIDDEN, &[0.5; 3 * HIDDEN]).unwrap();
    for _ in 0..5 {
        x = lazy.norm(x, Some(&other), &model.norm).unwrap();
    }
    lazy.read(&x).unwrap();
    assert_eq!(counted(&lazy).2, 5 + 1 + 5);
}

#[test]
fn one_of_two_results_may_be_there_already() {
    fn run<B: Backend>(backend: &B) -> Vec<f32> {
        let model = Model::new(backend);
        let write = |value: f32| backend.write(1, HIDDEN, &[1.0, 2.0, 4.0, value]).unwrap();
        let (sum, normed) = backend.add_norm(write(8.0), &write(3.0), &model.norm).unwrap();
        let both = backend.norm(normed, Some(&sum), &model.norm).unwrap();
        let read = |x: &B::Tensor| backend.read(x).unwrap();
        [read(&sum), read(&both)].concat()
    }
    let lazy = Lazy::new(Interpreter::default());
    assert_eq!(run(&lazy), run(&Reference));
}

#[test]
fn a_long_row_of_forwards_that_begin_anew_runs_and_is_let_go() {
    let lazy = Lazy::new(Interpreter::default());
    let norm = Model::new(&lazy).norm;
    let write = || lazy.write(1, HIDDEN, &[1.0, 2.0, 4.0, 8.0]).unwrap();
    let mut x = write();
    for i in 0..10_000 {
        x = if i % 2 == 0 { lazy.norm(write(), Some(&x), &norm) } else { lazy.norm(x, Some(&write()), &norm) }.unwrap();
    }
    assert_eq!(lazy.read(&x).unwrap().len(), HIDDEN);
}

#[test]
fn nothing_is_kept_of_what_was_dropped() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    let (hidden, mean) = model.forward(&lazy, &[1, 2, 3], &[2, 1]);
    lazy.read(&mean).unwrap();
    let (recording, noted) = (Arc::downgrade(&hidden.recording), hidden.recording.lock().steps());
    let values = {
        let state = hidden.recording.lock();
        Arc::downgrade(state.outcomes[hidden.value.0].buffer.as_ref().unwrap())
    };
    for row in [0, 1, 2] {
        lazy.read(&lazy.take_rows(&hidden, &[row]).unwrap()).unwrap();
    }
    assert_eq!(hidden.recording.lock().steps(), noted, "what follows computed values does not stay with them");
    drop(mean);
    let first = lazy.take_rows(&hidden, &[0]).unwrap();
    drop(hidden);
    assert!(recording.upgrade().is_none() && values.upgrade().is_some());
    drop(first);
    assert!(values.upgrade().is_none());
}

#[test]
fn what_failed_may_be_tried_again() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    for _ in 0..2 {
        let mean = model.forward(&lazy, &[1, 2, 3], &[2, 1]).1;
        lazy.device().broken.store(true, Ordering::Relaxed);
        assert!(matches!(lazy.read(&mean), Err(Error::Device { .. })));
        lazy.device().broken.store(false, Ordering::Relaxed);
        assert_eq!(lazy.read(&mean).unwrap(), expected(&[1, 2, 3], &[2, 1]));
    }
}

#[test]
fn two_threads_may_read_what_comes_of_one_forward() {
    let lazy = Lazy::new(Interpreter::default());
    let model = Model::new(&lazy);
    for round in 1..=20 {
        let (hidden, mean) = model.forward(&lazy, &[1, 2, 3], &[2, 1]);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(lazy.read(&mean).unwrap(), expected(&[1, 2, 3], &[2, 1])));
            let hidden = hidden;
            let row = lazy.take_rows(&hidden, &[1]).unwrap();
            assert_eq!(lazy.read(&row).unwrap().len(), HIDDEN);
        });
        assert!(counted(&lazy).1 <= 2 * round, "{round}");
    }
}

/// Tensors of `[3, HIDDEN]`, on both sides.
type Pair = (Tensor<Interpreter>, Array);

#[test]
fn any_order_of_noting_reading_and_dropping_gives_the_same() {
    let lazy = Lazy::new(Interpreter::default());
    let (model, reference) = (Model::new(&lazy), Model::new(&Reference));
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut pairs: Vec<Pair> = vec![];
        for _ in 0..40 {
            let other = pairs.len().saturating_sub(1 + random.below(3));
            match (random.below(9), pairs.pop()) {
                (0 | 1, last) => {
                    pairs.extend(last);
                    let ids = [random.below(10) as u32, 2, 3];
                    pairs.push((model.forward(&lazy, &ids, &[2, 1]).0, reference.forward(&Reference, &ids, &[2, 1]).0));
                }
                (2, last) => {
                    pairs.extend(last);
                    let values = [random.below(9) as f32; 3 * HIDDEN];
                    let written = Reference.write(3, HIDDEN, &values).unwrap();
                    pairs.push((lazy.write(3, HIDDEN, &values).unwrap(), written));
                }
                (_, None) => {}
                (3, Some((x, y))) => {
                    let rows = [random.below(3) as u32, 0, 1];
                    let taken = (lazy.take_rows(&x, &rows).unwrap(), Reference.take_rows(&y, &rows).unwrap());
                    pairs.extend([(x, y), taken]);
                }
                (4, Some((x, y))) => {
                    let (r, s) = pairs.get(other).map_or((None, None), |(r, s)| (Some(r), Some(s)));
                    let normed = lazy.norm(x, r, &model.norm).unwrap();
                    pairs.push((normed, Reference.norm(y, s, &reference.norm).unwrap()));
                }
                (5 | 6, Some((x, y))) if other < pairs.len() => {
                    let (r, s) = &pairs[other];
                    let (sum, normed) = lazy.add_norm(x, r, &model.norm).unwrap();
                    let expected = Reference.add_norm(y, s, &reference.norm).unwrap();
                    pairs.extend([(sum, expected.0), (normed, expected.1)]);
                }
                (7, Some((x, y))) => {
                    assert_eq!(lazy.read(&x).unwrap(), Reference.read(&y).unwrap(), "{seed}");
                    pairs.insert(random.below(pairs.len() + 1), (x, y));
                }
                (_, Some(dropped)) => drop(dropped),
            }
        }
        for (x, y) in &pairs {
            assert_eq!(lazy.read(x).unwrap(), Reference.read(y).unwrap(), "{seed}");
        }
    }
}
