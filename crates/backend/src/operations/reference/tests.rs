//! Values printed by PyTorch 2.15 in float64 (`torch.nn.functional`; `RoPE`: `transformers`, Llama).

use crate::operations::{HostArray, Operation, Operations};
use crate::{Error, Reference, Result};

fn run(operation: Operation, inputs: &[&HostArray]) -> Result<HostArray> {
    Reference.run(&operation, inputs)
}

fn floats(shape: &[usize], values: &[f32]) -> HostArray {
    HostArray::f32(shape, values.to_vec()).unwrap()
}

fn integers(values: &[i32]) -> HostArray {
    HostArray::i32(&[values.len()], values.to_vec()).unwrap()
}

#[track_caller]
fn near(operation: Operation, inputs: &[&HostArray], want: &[f64]) {
    let got = run(operation, inputs).unwrap();
    assert_eq!(got.floats().len(), want.len());
    for (&got, want) in got.floats().iter().zip(want) {
        assert!((f64::from(got) - want).abs() <= 1e-7 * want.abs().max(1.0), "{operation}: {got}, not {want}");
    }
}

#[test]
fn functions_are_pytorchs() {
    let x = floats(&[5], &[-3.0, -0.5, 0.0, 1.0, 100.0]);
    near(Operation::Selu, &[&x], &[-1.670_568_729, -0.691_758_188, 0.0, 1.050_700_987, 105.070_098_736]);
    near(Operation::Softplus, &[&x], &[0.048_587_352, 0.474_076_984, std::f64::consts::LN_2, 1.313_261_688, 100.0]);
    near(Operation::Prelu, &[&x, &floats(&[1], &[0.25])], &[-0.75, -0.125, 0.0, 1.0, 100.0]);
    let (p, y) = (floats(&[4], &[0.0, 1.0, 0.25, 0.75]), floats(&[4], &[1.0, 1.0, 0.0, 1.0]));
    near(Operation::Bce, &[&p, &y], &[25.143_841_036]);
}

#[test]
fn rows_are_pytorchs() {
    let x = floats(&[2, 3], &[1.0, 2.0, 4.0, 0.0, -1.0, 3.0]);
    let norm = [-1.069_041_531, -0.267_260_383, 1.336_301_914, -0.392_231_591, -0.980_578_979, 1.372_810_570];
    near(Operation::LayerNorm, &[&x], &norm);
    let columns = [0.731_058_579, 0.952_574_127, 0.731_058_579, 0.268_941_421, 0.047_425_873, 0.268_941_421];
    near(Operation::Softmax(0), &[&x], &columns);
    let rms = [0.377_964_446, 1.511_857_784, 4.535_573_352, 0.0, -1.095_444_951, 4.929_502_278];
    near(Operation::RmsNorm, &[&x, &floats(&[3], &[1.0, 2.0, 3.0])], &rms);
    let x = floats(&[3, 2], &[3.0, 0.0, 1.0, 8.0, 5.0, 12.0]);
    let pooled = [0.447_213_595, 0.894_427_191, 0.384_615_385, 0.923_076_923];
    near(Operation::MeanPoolNormalize, &[&x, &integers(&[2, 1])], &pooled);
    let x = floats(&[1, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    let rotated = [1.0, 2.0, 3.0, 4.0, -1.984_110_649, 1.959_900_667, 2.462_377_902, 4.019_799_668];
    near(Operation::Rope, &[&x], &rotated);
}

#[test]
fn convolutions_are_pytorchs() {
    let (x, w) =
        (floats(&[1, 3, 4, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]), [1.0, 2.0, 3.0, -1.0]);
    near(Operation::Conv2d, &[&x, &floats(&[1, 2, 2, 1], &w)], &[9.0, 14.0, 19.0, 29.0, 34.0, 39.0]);
    let x = floats(&[1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    near(Operation::Conv1d, &[&x, &floats(&[1, 2, 2], &w)], &[1.0 + 4.0 + 9.0 - 4.0, 3.0 + 8.0 + 15.0 - 6.0]);
}

#[test]
fn attention_is_pytorchs() {
    let shape = [1, 1, 2, 2];
    let [q, k, v] = [[1.0, 0.0, 0.5, 2.0], [1.0, 1.0, -1.0, 2.0], [1.0, 2.0, 3.0, 5.0]].map(|v| floats(&shape, &v));
    near(Operation::ScaledDotProductAttention, &[&q, &k, &v], &[1.0, 2.0, 2.339_523_099, 4.009_284_648]);
    let full = [1.391_140_635, 2.586_710_952, 2.339_523_099, 4.009_284_648];
    near(Operation::SelfAttention, &[&q, &k, &v, &integers(&[2])], &full);
    near(Operation::SelfAttention, &[&q, &k, &v, &integers(&[1])], &[1.0, 2.0, 0.0, 0.0]);
    let qkv = floats(&[2, 6], &[1.0, 0.0, 1.0, 1.0, 1.0, 2.0, 0.5, 2.0, -1.0, 2.0, 3.0, 5.0]);
    near(Operation::RaggedAttention(1), &[&qkv, &integers(&[2])], &full);
    near(Operation::RaggedAttention(2), &[&qkv, &integers(&[1, 1])], &[1.0, 2.0, 3.0, 5.0]);
}

#[test]
fn scattered_rows_follow_their_order() {
    let x = floats(&[3, 1], &[-1.0, 2.0, 5.0]);
    let edges = [integers(&[2, 0, 1, 0]), integers(&[0, 0, 1, 2])];
    let inputs = [&x, &edges[0], &edges[1]];
    near(Operation::Scatter, &inputs, &[-1.0, 2.0, -1.0]);
    near(Operation::ScatterSum, &inputs, &[4.0, 2.0, -1.0]);
    near(Operation::ScatterMax, &inputs, &[5.0, 2.0, 0.0]);
}

#[test]
fn orders_and_joins_are_exact() {
    let x = floats(&[2, 3], &[3.0, 1.0, f32::NAN, 0.5, 4.0, 4.0]);
    let sorted = run(Operation::Sort(1), &[&x]).unwrap();
    assert_eq!(sorted.floats()[..2], [1.0, 3.0]);
    assert!(sorted.floats()[2].is_nan());
    assert_eq!(sorted.floats()[3..], [0.5, 4.0, 4.0]);
    let x = floats(&[2, 3], &[3.0, 1.0, 3.0, 0.5, 4.0, 4.0]);
    assert_eq!(run(Operation::Argmax(1), &[&x]).unwrap(), integers(&[0, 1]));
    assert_eq!(run(Operation::Argmax(-2), &[&x]).unwrap(), integers(&[0, 1, 1]));
    let y = floats(&[2, 1], &[7.0, 8.0]);
    near(Operation::Concat(1), &[&x, &y], &[3.0, 1.0, 3.0, 7.0, 0.5, 4.0, 4.0, 8.0]);
}

#[test]
fn bad_indices_and_sizes_beyond_memory_are_errors() {
    let x = floats(&[2, 1], &[1.0, 2.0]);
    let bad = run(Operation::Gather, &[&x, &integers(&[0, -1])]);
    assert!(matches!(bad, Err(Error::Index { index: -1, position: 1, limit: 2, .. })));
    let bad = run(Operation::ScatterSum, &[&x, &integers(&[0]), &integers(&[2])]);
    assert!(matches!(bad, Err(Error::Index { index: 2, .. })));
    assert!(matches!(run(Operation::MeanPoolNormalize, &[&x, &integers(&[1])]), Err(Error::Shape { .. })));
    // 2⁴⁸ bytes: more than any process is given.
    let (wide, many) = (floats(&[1, 1 << 23], &vec![0.0; 1 << 23]), integers(&vec![0; 1 << 23]));
    assert!(matches!(run(Operation::Gather, &[&wide, &many]), Err(Error::OutOfMemory { backend: "reference", .. })));
}
