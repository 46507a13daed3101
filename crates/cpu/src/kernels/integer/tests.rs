//! Against the same rounding done plainly, and against what it stands for.

use half::bf16;
use mlxt_backend::{Activation, Backend, HostTensor, LinearPart, MatrixSource, Precision, Reference, Shaped};

use super::BLOCK;
use crate::tests::{assert_near, every_cpu, matrix, noise};
use crate::{Cpu, CpuOptions, Isa};

const PRECISIONS: [Precision; 2] = [Precision::Int8, Precision::Q4];

/// `values`, rounded to a precision and scaled back, in groups of so many.
fn rounded(values: &[f32], cols: usize, precision: Precision, size: usize) -> Vec<f32> {
    let by = |group: &[f32], scale: f32, least: f32, most: f32| -> Vec<f32> {
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        group.iter().map(|v| (v * inverse).round_ties_even().clamp(least, most) * scale).collect()
    };
    let group = |group: &[f32]| {
        let end = group.iter().copied().fold(0.0, |end: f32, v| if v.abs() > end.abs() { v } else { end });
        if precision == Precision::Int8 {
            // The value of the largest magnitude becomes 127 or -127.
            let whole = |v: &f32| (v * (127.0 / end.abs())).round_ties_even() * (end.abs() / 127.0);
            return group.iter().map(whole).collect();
        }
        // It becomes -8, or would become something below; whatever is the nearest to all.
        let tries = [1.0, 0.92, 0.85].map(|part| by(group, bf16::from_f32(end * part / -8.0).to_f32(), -8.0, 7.0));
        let error = |found: &Vec<f32>| found.iter().zip(group).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        tries.into_iter().min_by(|a, b| error(a).total_cmp(&error(b))).unwrap()
    };
    values.chunks_exact(cols).flat_map(|row| row.chunks(size)).flat_map(group).collect()
}

fn product<B: Backend>(b: &B, x: (usize, usize, &[f32]), source: MatrixSource, activation: Activation) -> Vec<f32> {
    let w = b.matrix(source).unwrap();
    let y = b.linear(&b.write(x.0, x.1, x.2).unwrap(), &w, activation).unwrap();
    assert_eq!((y.rows(), y.cols()), (x.0, w.rows()));
    b.read(&y).unwrap()
}

/// `values` in blocks, filled up with zeros, each times Hadamard's matrix of 32 for every fourth value.
fn spread(values: &[f32], cols: usize) -> Vec<f32> {
    let block = |block: &[f32]| {
        let mut out = [0.0; BLOCK];
        out[..block.len()].copy_from_slice(block);
        // Pairs in the order that decides how sums are rounded.
        for distance in [64, 32, 16, 8, 4] {
            let of = out;
            out = std::array::from_fn(|i| {
                if i & distance == 0 { of[i] + of[i + distance] } else { of[i - distance] - of[i] }
            });
        }
        out
    };
    values.chunks_exact(cols).flat_map(|row| row.chunks(BLOCK)).flat_map(block).collect()
}

/// What the product has to be: that of rounded rows and rounded weights, by the reference.
fn expected(rows: usize, inputs: usize, x: &[f32], source: &MatrixSource, activation: Activation) -> Vec<f32> {
    let whole = inputs.next_multiple_of(BLOCK);
    let group = if source.precision == Precision::Int8 { 128 } else { 32 };
    let part = |part: &LinearPart| {
        // The rotation makes products 32 times as large.
        let weight: Vec<_> = spread(&part.weight.full().to_f32(), inputs).iter().map(|w| w / 32.0).collect();
        let weight = rounded(&weight, whole, source.precision, group);
        let weight = HostTensor::from_f32(&[part.weight.shape()[0], whole], &weight);
        LinearPart { weight: weight.unwrap().into(), bias: part.bias.clone() }
    };
    let x = rounded(&spread(x, inputs), whole, Precision::Int8, BLOCK);
    let source = MatrixSource::new(source.parts.iter().map(part).collect(), Precision::F32);
    product(&Reference, (rows, whole, &x), source, activation)
}

fn check(rows: usize, outputs: usize, inputs: usize) {
    for precision in PRECISIONS {
        let mut x = noise(rows * inputs, 2.0);
        x.iter_mut().step_by(37).for_each(|v| *v *= 4.0);
        let source = || MatrixSource { precision, ..matrix(outputs, inputs) };
        let want = expected(rows, inputs, &x, &source(), Activation::Gelu);
        every_cpu(|cpu| {
            assert_near(&product(cpu, (rows, inputs, &x), source(), Activation::Gelu), &want, 5e-6);
            Ok(())
        });
    }
}

#[test]
fn every_tail_is_the_product_of_rounded_operands() {
    for rows in 1..32 {
        check(rows, 37, 21);
    }
    for outputs in 1..67 {
        check(3, outputs, 5);
    }
    for inputs in (1..35).chain([60, 63, 64, 65, 127, 128, 129, 255, 256, 257]) {
        check(5, 33, inputs);
    }
}

#[test]
fn larger_sizes_are_too() {
    check(50, 384, 384);
    check(14, 100, 3072);
    check(300, 70, 1025);
    check(1, 768, 768);
}

#[test]
fn the_error_is_that_of_the_digits() {
    let (rows, outputs, inputs) = (20, 64, 768);
    let x = noise(rows * inputs, 1.0);
    let exact = product(&Reference, (rows, inputs, &x), matrix(outputs, inputs), Activation::Identity);
    let cpu = Cpu::new(CpuOptions::default()).unwrap();
    for (precision, least) in [(Precision::Int8, 0.9999), (Precision::Q4, 0.995)] {
        let source = MatrixSource { precision, ..matrix(outputs, inputs) };
        let found = product(&cpu, (rows, inputs, &x), source, Activation::Identity);
        for (a, b) in exact.chunks_exact(outputs).zip(found.chunks_exact(outputs)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(cosine > least, "{precision}: {cosine}");
        }
    }
}

/// A value thirty times the others sets a scale alone. Spread over 32 it sets one that is smaller by up to `√32`, less what the
/// others add to it.
#[test]
fn a_large_value_costs_the_others_few_digits() {
    let (outputs, inputs) = (40, 512);
    let mut weights = noise(outputs * inputs, 1.0 / (inputs as f32).sqrt());
    // What is large has no weight, so that only what it does to others is seen.
    weights.iter_mut().enumerate().filter(|(i, _)| i % inputs == 3).for_each(|(_, w)| *w = 0.0);
    let source = |precision| {
        let weight = HostTensor::from_f32(&[outputs, inputs], &weights).unwrap();
        MatrixSource::new(vec![LinearPart { weight: weight.into(), bias: None }], precision)
    };
    let plain = noise(inputs, 1.0);
    let large = [&plain[..3], &[30.0], &plain[4..]].concat();
    let error = |x: &[f32], found: &[f32]| {
        let exact = product(&Reference, (1, inputs, x), source(Precision::F32), Activation::Identity);
        let squares = exact.iter().zip(found).map(|(a, b)| f64::from((a - b) * (a - b)));
        (squares.sum::<f64>() / outputs as f64).sqrt()
    };
    // What rounding the row alone without spreading it makes of it, with exact weights.
    let unspread = product(
        &Reference,
        (1, inputs, &rounded(&large, inputs, Precision::Int8, BLOCK)),
        source(Precision::F32),
        Activation::Identity,
    );
    let unspread = error(&large, &unspread);
    every_cpu(|cpu| {
        let [plain, large] = [&plain, &large]
            .map(|x| error(x, &product(cpu, (1, inputs, x), source(Precision::Int8), Activation::Identity)));
        assert!(plain < 0.01 && large < unspread / 2.0, "{plain} {large} {unspread}");
        Ok(())
    });
}

#[test]
fn what_is_no_number_stays_none() {
    for precision in PRECISIONS {
        every_cpu(|cpu| {
            for (at, value) in [(0, f32::NAN), (149, f32::INFINITY), (70, f32::NEG_INFINITY)] {
                let mut x = noise(3 * 150, 1.0);
                x[150 + at] = value;
                let source = MatrixSource { precision, ..matrix(33, 150) };
                let found = product(cpu, (3, 150, &x), source, Activation::Identity);
                let (first, rest) = found.split_at(33);
                let (second, third) = rest.split_at(33);
                assert!(first.iter().chain(third).all(|v| v.is_finite()));
                assert!(second.iter().all(|v| v.is_nan()), "{value} at {at}: {second:?}");
            }
            for value in [f32::NAN, f32::INFINITY] {
                let mut weights = noise(33 * 150, 1.0);
                weights[150] = value;
                let weight = HostTensor::from_f32(&[33, 150], &weights).unwrap();
                let source = MatrixSource::new(vec![LinearPart { weight: weight.into(), bias: None }], precision);
                let found = product(cpu, (1, 150, &noise(150, 1.0)), source, Activation::Identity);
                assert!(found.iter().enumerate().all(|(o, v)| v.is_finite() == (o != 1)), "{value}: {found:?}");
            }
            Ok(())
        });
    }
}

#[test]
fn nothing_is_nothing() {
    for precision in PRECISIONS {
        let weight = HostTensor::from_f32(&[3, 70], &[0.0; 210]).unwrap();
        let source = || MatrixSource::new(vec![LinearPart { weight: weight.clone().into(), bias: None }], precision);
        every_cpu(|cpu| {
            for x in [[0.0; 70], [1e-42; 70], [1.0; 70]] {
                assert_eq!(product(cpu, (1, 70, &x), source(), Activation::Identity), [0.0; 3]);
            }
            let source = MatrixSource { precision, ..matrix(3, 70) };
            let found = product(cpu, (1, 70, &[1e-42; 70]), source, Activation::Identity);
            assert!(found.iter().all(|v| v.is_finite()));
            Ok(())
        });
    }
}

/// The promise of the contract: a row's result is the same bits in any batch, on any number of threads.
#[test]
fn rows_do_not_depend_on_their_batch_or_the_threads() {
    let (inputs, outputs, total) = (1100, 70, 61);
    let values = noise(total * inputs, 1.0);
    for (isa, precision) in Isa::available().flat_map(|isa| PRECISIONS.map(|precision| (isa, precision))) {
        let source = || MatrixSource { precision, ..matrix(outputs, inputs) };
        let cpu =
            |threads| Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() }).unwrap();
        let whole = product(&cpu(1), (total, inputs, &values), source(), Activation::Gelu);
        for threads in 1..4 {
            let cpu = cpu(threads);
            for (first, rows) in [(0, 1), (60, 1), (0, 61), (3, 13), (5, 14), (7, 15), (20, 29), (1, 50)] {
                let part = &values[first * inputs..][..rows * inputs];
                let got = product(&cpu, (rows, inputs, part), source(), Activation::Gelu);
                assert_eq!(got, whole[first * outputs..][..rows * outputs], "{first}, {rows} on {isa}, {threads}");
            }
        }
    }
}

#[test]
fn errors_are_smaller_where_inputs_are_said_to_be_large() {
    let (rows, inputs, outputs) = (64, 300, 40);
    // Every fourth input is ten times as large: a hundred times in squares.
    let large = |i: usize| if i / 4 % 4 == 1 { 10.0 } else { 1.0 };
    let x: Vec<f32> = noise(rows * inputs, 1.0).iter().enumerate().map(|(i, v)| v * large(i % inputs)).collect();
    let source = |precision, squares: Option<Vec<f32>>| MatrixSource {
        precision,
        input_squares: squares,
        ..matrix(outputs, inputs)
    };
    let exact = product(&Reference, (rows, inputs, &x), source(Precision::F32, None), Activation::Identity);
    every_cpu(|cpu| {
        for precision in PRECISIONS {
            let error = |squares| {
                let y = product(cpu, (rows, inputs, &x), source(precision, squares), Activation::Identity);
                y.iter().zip(&exact).map(|(y, exact)| f64::from(y - exact).powi(2)).sum::<f64>()
            };
            let (plain, alike) = (error(None), error(Some(vec![3.0; inputs])));
            let told = error(Some((0..inputs).map(|i| large(i) * large(i)).collect()));
            assert!((plain - alike).abs() < 0.02 * plain, "{precision}: {plain} {alike}");
            assert!(told < 0.8 * plain, "{precision}: {plain} {told}");
        }
        Ok(())
    });
}

#[test]
fn squares_that_cannot_be_are_refused() {
    let cpu = Cpu::new(CpuOptions::default()).unwrap();
    for (squares, told) in [(vec![1.0; 3], "squares of inputs"), (vec![1.0, 0.0], "0"), (vec![f32::NAN, 1.0], "NaN")] {
        let source = MatrixSource { precision: Precision::Int8, input_squares: Some(squares), ..matrix(2, 2) };
        let error = cpu.matrix(source).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
