//! A checkpoint of BERT with random weights, of any size: what `check.rs` times, and tests compute on.

use std::error::Error;
use std::fs;

use mlxt_backend::conformance::random::Random;
use mlxt_models::{Config, Weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde_json::json;

/// How large it is. Heads have 64 columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hidden: usize,
    pub(crate) wide: usize,
    pub(crate) layers: usize,
    pub(crate) vocabulary: usize,
}

/// The configuration and the weights, the same on every machine.
pub(crate) fn bert(Size { hidden, wide, layers, vocabulary }: Size) -> Result<(Config, Weights), Box<dyn Error>> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut random = Random::new(1);
    let mut add = |name: String, shape: &[usize], scale: f32, offset: f32| {
        let values = random.normals(shape.iter().product(), scale);
        tensors.push((name, shape.to_vec(), values.iter().flat_map(|v| (v + offset).to_le_bytes()).collect()));
    };
    for (name, entries) in [("word", vocabulary), ("position", 512), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[entries, hidden], 0.05, 0.0);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..layers {
        let of = |name: &str| format!("encoder.layer.{layer}.{name}");
        for (name, outputs, inputs) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", wide, hidden),
            ("output.dense", hidden, wide),
        ] {
            add(of(&format!("{name}.weight")), &[outputs, inputs], 0.04, 0.0);
            add(of(&format!("{name}.bias")), &[outputs], 0.04, 0.0);
        }
        norms.extend([of("attention.output.LayerNorm"), of("output.LayerNorm")]);
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[hidden], 0.1, 1.0);
        add(format!("{norm}.bias"), &[hidden], 0.1, 0.0);
    }
    let folder = tempfile::tempdir()?;
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect();
    fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views?, None)?)?;
    let config = json!({ "model_type": "bert", "vocab_size": vocabulary, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": hidden / 64, "intermediate_size": wide, "hidden_act": "gelu",
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0 });
    // Mapped files stay mapped when their folder is gone.
    Ok((Config::from_json(&config.to_string())?, Weights::open(folder.path())?))
}
