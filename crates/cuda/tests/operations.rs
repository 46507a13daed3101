//! The study's operations on a GPU: `cargo test -p mlxt-cuda -- --ignored` on a machine that has one. That their kernels
//! compile is in `sources.rs`, for every machine.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use mlxt_backend::Error;
use mlxt_backend::operations::{HostArray, Operation, Operations, conformance};
use mlxt_cuda::{CudaDevice, CudaOptions};

fn device() -> CudaDevice {
    CudaDevice::new(&CudaOptions::default()).unwrap()
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn operations_conform() {
    let device = device();
    let report = conformance::check(&device);
    assert!(report.passed() && report.unsupported.is_empty(), "{report}");
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn indices_outside_are_errors() {
    let device = device();
    let run = |operation: Operation, inputs: &[HostArray]| {
        let arrays: Vec<_> = inputs.iter().enumerate().map(|(i, x)| device.upload(&operation, i, x).unwrap()).collect();
        device.download(&Operations::run(&device, &operation, &arrays.iter().collect::<Vec<_>>())?)
    };
    let x = HostArray::f32(&[3, 2], vec![1.0; 6]).unwrap();
    let index = |i: i32| HostArray::i32(&[2], vec![0, i]).unwrap();
    for bad in [3, -1] {
        let gathered = run(Operation::Gather, &[x.clone(), index(bad)]);
        assert!(matches!(gathered, Err(Error::Index { position: 1, limit: 3, .. })));
        for operation in [Operation::Scatter, Operation::ScatterSum, Operation::ScatterMax] {
            assert!(run(operation, &[x.clone(), index(bad), index(0)]).is_err());
            assert!(run(operation, &[x.clone(), index(0), index(bad)]).is_err());
        }
        assert!(run(Operation::MeanPoolNormalize, &[x.clone(), index(bad)]).is_err());
    }
}

/// Indices that only the device has seen: 70000 is outside, and nothing happens but that values differ.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn indices_of_the_device_do_no_harm() {
    let device = device();
    let mut far = vec![0.0; 70_001];
    far[70_000] = 1.0;
    let up = |operation: &Operation, i, x| device.upload(operation, i, &x).unwrap();
    let line = up(&Operation::Argmax(1), 0, HostArray::f32(&[1, 70_001], far).unwrap());
    let index = Operations::run(&device, &Operation::Argmax(1), &[&line]).unwrap();
    let x = up(&Operation::Gather, 0, HostArray::f32(&[3, 2], vec![1.0; 6]).unwrap());
    for (operation, inputs) in
        [(Operation::Gather, vec![&x, &index]), (Operation::ScatterSum, vec![&x, &index, &index])]
    {
        let out = Operations::run(&device, &operation, &inputs).unwrap();
        assert!(device.download(&out).is_ok(), "{operation}");
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn sorting_keeps_what_is_not_a_number_and_puts_it_last() {
    let device = device();
    for (shape, axis) in [([40, 40], 0), ([40, 40], 1), ([2, 3000], 1), ([3000, 2], 0)] {
        let mut x: Vec<f32> = (0..shape[0] * shape[1]).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
        (x[17], x[500], x[501]) = (f32::NAN, -f32::NAN, f32::NEG_INFINITY);
        let (operation, x) = (Operation::Sort(axis), HostArray::f32(&shape, x).unwrap());
        let array = device.upload(&operation, 0, &x).unwrap();
        let got = device.download(&Operations::run(&device, &operation, &[&array]).unwrap()).unwrap();
        let want = mlxt_backend::Reference.run(&operation, &[&x]).unwrap();
        let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
        assert!(got.floats().iter().zip(want.floats()).all(same), "{shape:?} along {axis}");
    }
}
