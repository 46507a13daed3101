//! Tests of the backend as a whole, and what the kernels' tests share. Each kernel's own tests are in its file.

use std::thread;

use mlxt_backend::{
    Activation, Arithmetic, Attention, Backend, Error, HostTensor, LinearPart, Lookup, Mask, MatrixSource, NormKind,
    NormSource, Precision, Reduction, RelativeSource, Result, Rotation, Segments, Shaped,
};

use crate::{Cpu, CpuOptions, Isa, MOST_THREADS};

/// Numbers between `-scale` and `scale` that are always the same (a linear congruential generator).
pub(crate) fn noise(len: usize, scale: f32) -> Vec<f32> {
    let mut state = len as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(|_| next()).collect()
}

/// A linear layer of random weights whose outputs have about the size of its inputs.
pub(crate) fn matrix(outputs: usize, inputs: usize) -> MatrixSource {
    let weight = HostTensor::from_f32(&[outputs, inputs], &noise(outputs * inputs, 1.0 / (inputs as f32).sqrt()));
    let bias = HostTensor::from_f32(&[outputs], &noise(outputs, 1.0)).unwrap();
    let parts = vec![LinearPart { weight: weight.unwrap().into(), bias: Some(bias) }];
    MatrixSource::new(parts, Precision::F32)
}

/// Runs a check on every instruction set, with one thread and with three.
pub(crate) fn every_cpu(check: impl Fn(&Cpu) -> Result<()>) {
    for isa in Isa::available() {
        for threads in [1, 3] {
            let cpu = Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() }).unwrap();
            if let Err(e) = check(&cpu) {
                panic!("{isa}, {threads} threads: {e}");
            }
        }
    }
}

/// Runs a check on a CPU that multiplies in bfloat16, with one thread and with three, if this one can.
pub(crate) fn every_cpu_in_bf16(check: impl Fn(&Cpu)) {
    let arithmetic = Cpu::arithmetic(Precision::Bf16);
    if arithmetic != Arithmetic::Bf16 {
        println!("not checked: this CPU does not multiply faster in bf16");
        return;
    }
    for threads in [1, 3] {
        check(&Cpu::new(CpuOptions { threads: Some(threads), arithmetic, ..CpuOptions::default() }).unwrap());
    }
}

/// That each value is within `tolerance` of `max(1, |want|)`.
#[track_caller]
pub(crate) fn assert_near(got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(got) - f64::from(want)).abs() / f64::from(want.abs()).max(1.0);
        assert!(off <= tolerance, "value {i} is {got}, not {want}: {off:e}");
    }
}

fn cpu(threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() }).unwrap()
}

/// A small encoder layer, end to end.
struct Layer {
    words: crate::Table,
    qkv: crate::Matrix,
    up: crate::Matrix,
    down: crate::Matrix,
    norm: crate::Norm,
}

const HIDDEN: usize = 24;

impl Layer {
    fn new(cpu: &Cpu) -> Self {
        let ones = HostTensor::from_f32(&[HIDDEN], &[1.0; HIDDEN]).unwrap();
        let norm = NormSource { kind: NormKind::LayerNorm, gain: ones, shift: None, eps: 1e-12 };
        Self {
            words: cpu.table(HostTensor::from_f32(&[50, HIDDEN], &noise(50 * HIDDEN, 1.0)).unwrap()).unwrap(),
            qkv: cpu.matrix(matrix(3 * HIDDEN, HIDDEN)).unwrap(),
            up: cpu.matrix(matrix(4 * HIDDEN, HIDDEN)).unwrap(),
            down: cpu.matrix(matrix(HIDDEN, 4 * HIDDEN)).unwrap(),
            norm: cpu.norm_weights(norm).unwrap(),
        }
    }

    fn forward(&self, cpu: &Cpu, lengths: &[usize]) -> Result<Vec<f32>> {
        let segments = Segments::from_lengths(lengths)?;
        let layout = cpu.layout(&segments)?;
        let ids: Vec<u32> = segments.ranges().flat_map(|r| (0..r.len()).map(|i| i as u32 * 7 % 50)).collect();
        let x = cpu.embed(&[Lookup { table: &self.words, ids: &ids }])?;
        let x = cpu.norm(x, None, &self.norm)?;
        let a = Attention { heads: 3, head_size: 8, scale: 0.35, mask: Mask::Full };
        let y = cpu.attention(&cpu.linear(&x, &self.qkv, Activation::Identity)?, &layout, &a, None)?;
        let x = cpu.norm(y, Some(&x), &self.norm)?;
        let up = cpu.linear(&x, &self.up, Activation::Gelu)?;
        let x = cpu.norm(cpu.linear(&up, &self.down, Activation::Identity)?, Some(&x), &self.norm)?;
        cpu.read(&cpu.reduce_rows(&x, &layout, Reduction::Mean)?)
    }
}

#[test]
fn memory_stays_flat_over_ten_thousand_random_batches() {
    let cpu = cpu(2);
    let layer = Layer::new(&cpu);
    let mut state = 1_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    let mut usage_at = Vec::new();
    for batch in 0..10_000 {
        let lengths: Vec<usize> = (0..=random(4)).map(|_| 1 + random(40)).collect();
        layer.forward(&cpu, &lengths).unwrap();
        if batch % 1000 == 999 {
            usage_at.push(cpu.arena.usage());
        }
    }
    let (early, end) = (usage_at[1], usage_at[9]);
    assert!(end.allocations <= early.allocations + 3, "still allocating: {usage_at:?}");
    assert!(end.allocations < 100, "{usage_at:?}");
    // Never more than 4 tensors and a scratch at once, of at most 160 rows of 4 * HIDDEN, or 40 keys of scratch.
    let largest = 160 * 4 * HIDDEN * size_of::<f32>();
    assert!(end.bytes < 8 * largest, "{} bytes held, the largest tensor has {largest}", end.bytes);
}

#[test]
fn batches_equal_their_sequences_alone_bit_for_bit() {
    let lengths = [3, 30, 1, 17, 64];
    let layer = Layer::new(&cpu(1));
    let whole = layer.forward(&cpu(1), &lengths).unwrap();
    for threads in 1..4 {
        let cpu = cpu(threads);
        assert_eq!(layer.forward(&cpu, &lengths).unwrap(), whole);
        for (length, row) in lengths.into_iter().zip(whole.chunks(HIDDEN)) {
            assert_eq!(layer.forward(&cpu, &[length]).unwrap(), row, "{length} rows, {threads} threads");
        }
    }
}

#[test]
fn callers_on_several_threads_get_the_same_answers() {
    let cpu = cpu(2);
    let layer = Layer::new(&cpu);
    let want = layer.forward(&cpu, &[40, 20]).unwrap();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..100).for_each(|_| assert_eq!(layer.forward(&cpu, &[40, 20]).unwrap(), want)));
        }
    });
}

#[test]
fn tensors_may_outlive_their_backend() {
    let x = cpu(2).write(2, 2, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    let other = cpu(1);
    assert_eq!(other.read(&x).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn options_that_cannot_be_met_are_errors() {
    // Lists of that many threads have no room in memory, or more than an address can tell.
    for threads in [0, MOST_THREADS + 1, 1_000_000_000_000_000, usize::MAX] {
        let error = Cpu::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() }).unwrap_err();
        assert!(matches!(error, Error::Setting { op: "cpu", .. }), "{error}");
        assert!(error.to_string().contains(&format!("1 to 4096 threads, found {threads}")), "{error}");
    }
    for isa in Isa::ALL {
        let made = Cpu::new(CpuOptions { threads: Some(1), isa: Some(isa), ..CpuOptions::default() });
        if Isa::available().any(|a| a == isa) {
            assert_eq!(made.unwrap().isa(), isa);
        } else {
            let message = made.unwrap_err().to_string();
            assert!(message.contains(isa.name()) && message.contains("it has"), "{message}");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_errors() {
    let cpu = cpu(1);
    let w = cpu.matrix(matrix(4, 3)).unwrap();
    let x = cpu.write(2, 4, &[0.0; 8]).unwrap();
    assert!(matches!(cpu.linear(&x, &w, Activation::Identity), Err(Error::Shape { op: "linear", .. })));
    assert!(matches!(cpu.take_rows(&x, &[2]), Err(Error::Index { index: 2, limit: 2, .. })));
    let layout = cpu.layout(&Segments::from_lengths(&[3]).unwrap()).unwrap();
    assert!(matches!(cpu.reduce_rows(&x, &layout, Reduction::Max), Err(Error::Shape { .. })));
    let table = cpu.table(HostTensor::from_f32(&[5, 2], &[0.0; 10]).unwrap()).unwrap();
    assert_eq!((table.rows(), table.cols()), (5, 2));
    assert!(matches!(cpu.embed(&[Lookup { table: &table, ids: &[5] }]), Err(Error::Index { limit: 5, .. })));
}

#[test]
fn relative_terms_that_do_not_fit_are_errors() {
    let cpu = cpu(1);
    let part = |rows: usize, cols: usize| Some(cpu.write(rows, cols, &vec![0.0; rows * cols]).unwrap());
    let source = |buckets: &[u32], keys, bias| {
        let buckets = buckets.to_vec();
        cpu.relative(RelativeSource { buckets, keys, queries: None, bias })
    };
    assert!(matches!(source(&[], part(2, 6), None), Err(Error::Setting { op: "relative", .. })));
    assert!(matches!(source(&[0, 1], part(2, 6), None), Err(Error::Setting { op: "relative", .. })));
    assert!(matches!(source(&[0], None, None), Err(Error::Setting { op: "relative", .. })));
    assert!(matches!(source(&[0, 1, 2], part(3, 6), part(2, 2)), Err(Error::Index { index: 2, limit: 2, .. })));
    let layout = cpu.layout(&Segments::from_lengths(&[4]).unwrap()).unwrap();
    let attend = |keys, bias| {
        let relative = source(&[0, 1, 0], keys, bias)?;
        let a = Attention { heads: 2, head_size: 3, scale: 1.0, mask: Mask::Full };
        cpu.attention(&cpu.write(4, 18, &[0.0; 72])?, &layout, &a, Some(&relative))
    };
    assert!(attend(part(2, 6), part(2, 2)).is_ok());
    assert!(matches!(attend(part(2, 5), None), Err(Error::Shape { expected: 6, found: 5, .. })));
    assert!(matches!(attend(None, part(2, 1)), Err(Error::Shape { expected: 2, found: 1, .. })));
}

#[test]
fn rotations_and_gates_that_do_not_fit_are_errors() {
    let cpu = cpu(1);
    let layout = cpu.layout(&Segments::from_lengths(&[2]).unwrap()).unwrap();
    let rotate = |cols: usize, rows: usize, head_size, theta| {
        cpu.rotate(cpu.write(rows, cols, &vec![0.0; rows * cols])?, &layout, &Rotation { heads: 1, head_size, theta })
    };
    assert!(rotate(6, 2, 2, 1.0).is_ok());
    assert!(matches!(rotate(9, 2, 3, 1.0), Err(Error::Setting { op: "rotate", .. })));
    assert!(matches!(rotate(6, 2, 2, f32::NAN), Err(Error::Setting { op: "rotate", .. })));
    assert!(matches!(rotate(6, 2, 2, 0.5), Err(Error::Setting { op: "rotate", .. })));
    assert!(matches!(rotate(6, 3, 2, 1.0), Err(Error::Shape { what: "rows of the layout", .. })));
    assert!(matches!(rotate(8, 2, 2, 1.0), Err(Error::Shape { op: "rotate", .. })));
    let odd = cpu.gate(&cpu.write(1, 3, &[0.0; 3]).unwrap(), Activation::Gelu);
    assert!(matches!(odd, Err(Error::Shape { op: "gate", expected: 2, found: 3, .. })));
}

#[test]
fn it_says_what_it_is() {
    let info = cpu(2).info();
    assert_eq!(info.device, "cpu");
    assert!(!info.hardware.is_empty());
    assert_eq!(info.detail, format!("{}, 2 threads", Isa::best()));
}
