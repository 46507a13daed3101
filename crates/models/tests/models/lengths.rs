//! Sequences of every length a model takes: in any company they give the bits they give alone, and never a NaN.

use std::fs;
use std::sync::OnceLock;

use crate::bad_checkpoints::bert_with;
use mlxt_backend::conformance::random::Random;
use mlxt_backend::{Backend, Precision, TokenBatch};
use mlxt_cpu::{Cpu, CpuOptions};
use mlxt_models::{Config, Encoder, Error, Pooling, Weights, pool};
use proptest::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const POSITIONS: usize = 512;

/// The fixture `bert` with 512 positions instead of 45.
fn model() -> &'static (Cpu, Encoder<Cpu>) {
    static MODEL: OnceLock<(Cpu, Encoder<Cpu>)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = bert_with(|tensors| {
            let (_, shape, _) = &tensors["embeddings.position_embeddings.weight"];
            let cols = shape[1];
            let values = Random::new(1).normals(POSITIONS * cols, 0.7);
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let table = (Dtype::F32, vec![POSITIONS, cols], bytes);
            tensors.insert("embeddings.position_embeddings.weight".into(), table);
        });
        let file = folder.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        config["max_position_embeddings"] = json!(POSITIONS);
        fs::write(&file, config.to_string()).unwrap();
        let config = Config::open(folder.path()).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        let cpu = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
        let encoder = Encoder::load(&cpu, &config, &weights, Precision::F32).unwrap();
        (cpu, encoder)
    })
}

/// A sequence that depends on its length and `seed` alone.
fn sequence(length: usize, seed: u64) -> Vec<u32> {
    let (_, encoder) = model();
    let mut random = Random::new(seed);
    (0..length).map(|_| random.below(encoder.config().vocab_size()) as u32).collect()
}

/// Hidden states and mean of each sequence, one batch.
fn run(sequences: &[Vec<u32>]) -> (Vec<f32>, Vec<f32>) {
    let (cpu, encoder) = model();
    let hidden = encoder.forward(cpu, &TokenBatch::from_sequences(sequences).unwrap()).unwrap();
    let pooled = pool(cpu, &hidden, Pooling::Mean).unwrap();
    (cpu.read(&hidden.tensor).unwrap(), cpu.read(&pooled).unwrap())
}

fn company_changes_nothing(sequences: &[Vec<u32>]) {
    let (rows, means) = run(sequences);
    let hidden = model().1.config().hidden_size();
    let mut row = 0;
    for (i, sequence) in sequences.iter().enumerate() {
        let (own_rows, own_mean) = run(std::slice::from_ref(sequence));
        assert!(own_rows.iter().chain(&own_mean).all(|v| v.is_finite()), "length {}", sequence.len());
        assert_eq!(own_rows, rows[row * hidden..][..own_rows.len()], "length {}", sequence.len());
        assert_eq!(own_mean, means[i * hidden..][..hidden], "length {}", sequence.len());
        row += sequence.len();
    }
    assert_eq!(row * hidden, rows.len());
}

#[test]
fn every_length_from_1_to_512() {
    let lengths: Vec<usize> = (1..=POSITIONS).collect();
    for lengths in lengths.chunks(64) {
        let sequences: Vec<_> = lengths.iter().map(|&n| sequence(n, n as u64)).collect();
        company_changes_nothing(&sequences);
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_named() {
    let (cpu, encoder) = model();
    let beyond = encoder.config().vocab_size() as u32;
    let forward = |ids: Vec<u32>, types: Vec<u32>| {
        let batch = TokenBatch::new(ids, types, &[2, 3]).unwrap();
        encoder.forward(cpu, &batch).map(|_| ()).unwrap_err()
    };
    let error = forward(vec![2, 3, 2, beyond, 3], vec![0; 5]);
    assert!(matches!(error, Error::Id { what: "token id", sequence: 1, position: 1, .. }), "{error}");
    let error = forward(vec![2, 3, 2, 4, 3], vec![0, 9, 0, 0, 0]);
    assert!(matches!(error, Error::Id { what: "token type id", sequence: 0, position: 1, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_lengths_in_any_order(lengths in prop::collection::vec(1..=POSITIONS, 1..12), seed in any::<u64>()) {
        let sequences: Vec<_> = lengths.iter().zip(seed..).map(|(&n, seed)| sequence(n, seed)).collect();
        company_changes_nothing(&sequences);
    }
}
