//! Conformance on every instruction set, and what the table does not ask: memory, refusals, values that are no numbers.

use mlxt_backend::operations::{HostArray, Operation, Operations, conformance};
use mlxt_backend::{Error, Result};

use crate::simd::MAX_LANES;
use crate::tests::{assert_near, every_cpu, noise};
use crate::{Cpu, CpuOptions};

fn run(cpu: &Cpu, operation: Operation, inputs: &[HostArray]) -> Result<HostArray> {
    let upload = |(i, array)| cpu.upload(&operation, i, array);
    let arrays = inputs.iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    cpu.download(&cpu.run(&operation, &arrays.iter().collect::<Vec<_>>())?)
}

#[test]
fn operations_conform() {
    every_cpu(|cpu| {
        let report = conformance::check(cpu);
        assert!(report.passed(), "{}: {report}", cpu.isa());
        assert!(report.unsupported.is_empty(), "{:?}", report.unsupported);
        Ok(())
    });
}

/// Results large enough to be streamed past the caches are the same values.
#[test]
fn far_results_are_the_near_ones() {
    let cpu = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    let rows = super::FAR / 33 + 9;
    let x = noise(rows * 33, 2.0);
    let part = &x[..200 * 33];
    let array = |rows: usize, x: &[f32]| HostArray::f32(&[rows, 33], x.to_vec()).unwrap();
    let operations =
        [Operation::Relu, Operation::Selu, Operation::Softmax(-1), Operation::LayerNorm, Operation::HostToDevice];
    for operation in operations {
        let far = run(&cpu, operation, &[array(rows, &x)]).unwrap();
        let near = run(&cpu, operation, &[array(200, part)]).unwrap();
        assert_eq!(far.floats()[..200 * 33], *near.floats(), "{operation}");
    }
    let short =
        |x: &[f32]| run(&cpu, Operation::Softmax(-1), &[HostArray::f32(&[x.len() / 8, 8], x.to_vec()).unwrap()]);
    assert_eq!(short(&x[..rows * 33 / 8 * 8]).unwrap().floats()[..1600], *short(&x[..1600]).unwrap().floats());
    let joined = run(&cpu, Operation::Concat(1), &[array(rows, &x), array(rows, &x)]).unwrap();
    assert!(joined.floats().chunks(66).zip(x.chunks(33)).all(|(out, x)| out[..33] == *x && out[33..] == *x));
    let w = [HostArray::f32(&[33, 40], noise(33 * 40, 1.0)).unwrap(), HostArray::f32(&[40], noise(40, 1.0)).unwrap()];
    let linear = |x| run(&cpu, Operation::Linear, &[x, w[0].clone(), w[1].clone()]).unwrap();
    let (far, near) = (linear(array(rows, &x)), linear(array(200, part)));
    assert_eq!(far.floats()[..200 * 40], *near.floats());
    let x = noise(super::FAR + 17 * 48, 1.0);
    for size in [40, 48] {
        let attend = |batch: usize| {
            let x = HostArray::f32(&[batch, 1, 17, size], x[..batch * 17 * size].to_vec()).unwrap();
            run(&cpu, Operation::ScaledDotProductAttention, &[x.clone(), x.clone(), x]).unwrap()
        };
        let (far, near) = (attend(super::FAR / (17 * size) + 1), attend(30));
        assert_eq!(far.floats()[..near.floats().len()], *near.floats(), "attention of {size}");
    }
}

#[test]
fn nothing_is_allocated_for_the_second_run() {
    let cpu = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    for case in mlxt_backend::operations::cases() {
        let upload = |(i, array): (usize, &HostArray)| cpu.upload(&case.operation, i, array).unwrap();
        let arrays: Vec<_> = case.inputs().unwrap().iter().enumerate().map(upload).collect();
        let arrays: Vec<_> = arrays.iter().collect();
        let runs = || drop(cpu.run(&case.operation, &arrays));
        runs();
        runs();
        let usage = cpu.arena.usage();
        runs();
        assert_eq!(cpu.arena.usage(), usage, "{case}");
    }
}

#[test]
fn sorting_keeps_what_is_not_a_number_and_puts_it_last() {
    every_cpu(|cpu| {
        for axis in [0, 1] {
            let mut x = noise(40 * 40, 1.0);
            x[17] = f32::NAN;
            x[500] = -f32::NAN;
            x[501] = f32::NEG_INFINITY;
            let x = HostArray::f32(&[40, 40], x)?;
            let (got, want) = (
                run(cpu, Operation::Sort(axis), std::slice::from_ref(&x))?,
                mlxt_backend::Reference.run(&Operation::Sort(axis), &[&x])?,
            );
            let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
            assert!(got.floats().iter().zip(want.floats()).all(same), "axis {axis}");
        }
        Ok(())
    });
}

/// Rows of every length around the lanes, and rows of which some are no numbers or no end: those of the reference.
#[test]
fn rows_of_all_kinds_are_those_of_the_reference() {
    const NUMBERS: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
    let rows = 2 * MAX_LANES + 1;
    let check = |cpu: &Cpu, x: Vec<f32>, len: usize| -> Result<()> {
        let x = HostArray::f32(&[x.len() / len, len], x)?;
        for operation in [Operation::Argmax(-1), Operation::Softmax(-1)] {
            let got = run(cpu, operation, std::slice::from_ref(&x))?;
            let want = mlxt_backend::Reference.run(&operation, &[&x])?;
            if operation == Operation::Argmax(-1) {
                assert_eq!(got, want, "{len}");
            } else {
                let same = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 || (a.is_nan() && b.is_nan());
                assert!(got.floats().iter().zip(want.floats()).all(same), "{len}: {got:?}, not {want:?}");
            }
        }
        Ok(())
    };
    every_cpu(|cpu| {
        for len in (1..=2 * MAX_LANES + 1).chain([70, 4099]) {
            let x = noise(rows * len, 8.0);
            check(cpu, x.clone(), len)?;
            // Whole steps: several are the largest.
            check(cpu, x.iter().map(|v| (v / 4.0).round()).collect(), len)?;
            for odd in NUMBERS {
                // In row r at r, or at 0 and r.
                for first in [false, true] {
                    let mut x = x.clone();
                    for (r, row) in x.chunks_exact_mut(len).enumerate() {
                        row[r % len] = odd;
                        row[0] = if first { odd } else { row[0] };
                    }
                    check(cpu, x, len)?;
                }
            }
            // Rows that begin with minus infinities, or hold nothing else.
            let mut x = x.clone();
            x.chunks_exact_mut(len)
                .enumerate()
                .for_each(|(r, row)| row[..(len - 1).max(r % 2)].fill(f32::NEG_INFINITY));
            check(cpu, x, len)?;
            check(cpu, vec![f32::NEG_INFINITY; len], len)?;
        }
        Ok(())
    });
}

/// Columns that are cut into strips, of which there are as many as threads or as fit the nearest cache; and several blocks of rows.
#[test]
fn strips_of_columns_are_those_of_the_reference() {
    every_cpu(|cpu| {
        for [outer, len, inner] in [[1, 150, 40], [2, 150, 1000], [1, 3, 9001], [1, 70, 2 * MAX_LANES + 1]] {
            let x = HostArray::f32(&[outer, len, inner], noise(outer * len * inner, 1.0))?;
            for operation in [Operation::Sum(1), Operation::Argmax(1)] {
                let got = run(cpu, operation, std::slice::from_ref(&x))?;
                let want = mlxt_backend::Reference.run(&operation, &[&x])?;
                if operation == Operation::Argmax(1) {
                    assert_eq!(got, want, "{outer}, {len}, {inner}");
                } else {
                    // Up to 64 are added one by one.
                    assert_near(got.floats(), want.floats(), 2e-5);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn indices_outside_are_errors() {
    let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let x = HostArray::f32(&[3, 2], noise(6, 1.0)).unwrap();
    let index = |i: i32| HostArray::i32(&[2], vec![0, i]).unwrap();
    for bad in [3, -1] {
        let gathered = run(&cpu, Operation::Gather, &[x.clone(), index(bad)]);
        assert!(matches!(gathered, Err(Error::Index { position: 1, limit: 3, .. })));
        for operation in [Operation::Scatter, Operation::ScatterSum, Operation::ScatterMax] {
            assert!(run(&cpu, operation, &[x.clone(), index(bad), index(0)]).is_err());
            assert!(run(&cpu, operation, &[x.clone(), index(0), index(bad)]).is_err());
        }
        assert!(run(&cpu, Operation::MeanPoolNormalize, &[x.clone(), index(bad)]).is_err());
    }
    // Many are looked at by several threads: still the first is named.
    let cpu = Cpu::new(CpuOptions { threads: Some(3), ..CpuOptions::default() }).unwrap();
    let mut many = vec![2; 100_000];
    (many[70_000], many[90_001]) = (-5, 7);
    let index = HostArray::i32(&[many.len()], many).unwrap();
    for inputs in [vec![x.clone(), index.clone()], vec![x, index.clone(), index]] {
        let operation = if inputs.len() == 2 { Operation::Gather } else { Operation::Scatter };
        let got = run(&cpu, operation, &inputs);
        assert!(matches!(got, Err(Error::Index { index: -5, position: 70_000, limit: 3, .. })), "{got:?}");
    }
}
