//! Weights kept in 16 bits: the CPU's encoder is the reference's with the same rounded weights.

use half::f16;
use mlxt_backend::{Backend, Precision, Reference, TokenBatch};
use mlxt_cpu::{Cpu, CpuOptions};
use mlxt_models::{Config, Encoder, Weights};
use safetensors::tensor::Dtype;

use crate::bad_checkpoints::bert_with;

fn hidden<B: Backend>(backend: &B, folder: &std::path::Path, precision: Precision) -> Vec<f32> {
    let config = Config::open(folder).unwrap();
    let encoder = Encoder::load(backend, &config, &Weights::open(folder).unwrap(), precision).unwrap();
    let batch = TokenBatch::from_sequences(&[vec![2, 7, 11, 3], vec![2, 9, 9, 30, 31, 3]]).unwrap();
    backend.read(&encoder.forward(backend, &batch).unwrap().tensor).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap()
}

/// The values of an f32 tensor.
fn values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

#[test]
fn the_cpu_computes_what_the_reference_does() {
    let folder = bert_with(|_| {});
    let full = hidden(&cpu(), folder.path(), Precision::F32);
    for precision in [Precision::Bf16, Precision::F16] {
        let found = hidden(&cpu(), folder.path(), precision);
        assert_ne!(found, full);
        let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let error = off(&found, &hidden(&Reference, folder.path(), precision));
        assert!(error < 1e-5, "{precision}: {error}");
    }
}

#[test]
fn where_the_cpu_multiplies_in_bf16_the_error_is_that_of_bf16() {
    let folder = bert_with(|_| {});
    let arithmetic = Cpu::arithmetic(Precision::Bf16);
    let cpu = Cpu::new(CpuOptions { arithmetic, ..CpuOptions::default() }).unwrap();
    let (full, found) =
        (hidden(&Reference, folder.path(), Precision::F32), hidden(&cpu, folder.path(), Precision::Bf16));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let cosine = dot(&full, &found) / (dot(&full, &full) * dot(&found, &found)).sqrt();
    assert!(cosine > 0.9999 && found != full, "{cosine}");
}

#[test]
fn a_checkpoint_of_halves_loses_nothing_by_staying_so() {
    let folder = bert_with(|tensors| {
        for (dtype, _, data) in tensors.values_mut().filter(|(dtype, ..)| *dtype == Dtype::F32) {
            *dtype = Dtype::F16;
            *data = values(data).flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
        }
    });
    assert_eq!(hidden(&cpu(), folder.path(), Precision::F16), hidden(&cpu(), folder.path(), Precision::F32));
}

#[test]
fn a_weight_outside_the_range_is_named() {
    let name = "bert.encoder.layer.0.attention.self.key.weight";
    let folder = bert_with(|tensors| {
        let name = if tensors.contains_key(name) { name } else { &name["bert.".len()..] };
        let (_, _, data) = tensors.get_mut(name).unwrap();
        data[20..24].copy_from_slice(&1e6_f32.to_le_bytes());
    });
    let config = Config::open(folder.path()).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    assert!(Encoder::load(&cpu(), &config, &weights, Precision::Bf16).is_ok());
    for message in [
        Encoder::load(&cpu(), &config, &weights, Precision::F16).unwrap_err().to_string(),
        Encoder::load(&Reference, &config, &weights, Precision::F16).unwrap_err().to_string(),
    ] {
        assert!(
            message.contains("layer.0.attention.self.key.weight: the weight 1e6 at element 5 is outside"),
            "{message}"
        );
    }
}
