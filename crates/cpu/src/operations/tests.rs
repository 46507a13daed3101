//! Conformance on every instruction set, and what the table does not ask: memory, refusals, values that are no numbers.

use mlxt_backend::operations::{HostArray, Operation, Operations, conformance};
use mlxt_backend::{Error, Result};

use crate::tests::{every_cpu, noise};
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
    let joined = run(&cpu, Operation::Concat(1), &[array(rows, &x), array(rows, &x)]).unwrap();
    assert!(joined.floats().chunks(66).zip(x.chunks(33)).all(|(out, x)| out[..33] == *x && out[33..] == *x));
    let w = [HostArray::f32(&[33, 40], noise(33 * 40, 1.0)).unwrap(), HostArray::f32(&[40], noise(40, 1.0)).unwrap()];
    let linear = |x| run(&cpu, Operation::Linear, &[x, w[0].clone(), w[1].clone()]).unwrap();
    let (far, near) = (linear(array(rows, &x)), linear(array(200, part)));
    assert_eq!(far.floats()[..200 * 40], *near.floats());
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
}
