//! `Dense` modules of sentence-transformers: values as that library gives them, and errors for what does not fit.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests
#![allow(clippy::excessive_precision)] // as they were printed

mod common;

use std::fs;
use std::path::Path;

use common::{copy, difference};
use mlx_transformers::{Error, SentenceTransformer};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};

const HIDDEN: usize = 18;

/// Writes a `Dense` whose weight in row r and column c is `((7 r + 3 c + seed) mod 11 − 5) / 8`, and whose bias is the first
/// row of such a table with the next seed.
fn write_dense(folder: &Path, outputs: usize, inputs: usize, seed: usize, settings: &Value) {
    let value = |row: usize, col: usize, seed: usize| (((7 * row + 3 * col + seed) % 11) as f32 - 5.0) / 8.0;
    let bytes = |rows: usize, cols: usize, seed: usize| -> Vec<u8> {
        (0..rows * cols).flat_map(|i| value(i / cols, i % cols, seed).to_le_bytes()).collect()
    };
    let (weight, bias) = (bytes(outputs, inputs, seed), bytes(1, outputs, seed + 1));
    let view = |shape: Vec<usize>, bytes| TensorView::new(Dtype::F32, shape, bytes).unwrap();
    let mut tensors = vec![("linear.weight", view(vec![outputs, inputs], &weight))];
    if settings["bias"] == true {
        tensors.push(("linear.bias", view(vec![outputs], &bias)));
    }
    fs::create_dir_all(folder).unwrap();
    serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
    let mut config = json!({"in_features": inputs, "out_features": outputs});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn write_modules(folder: &Path, modules: &[(&str, &str)]) {
    let front = [("", "Transformer"), ("1_Pooling", "Pooling")];
    let all = front.iter().chain(modules);
    let all: Vec<Value> =
        all.map(|(path, kind)| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")})).collect();
    fs::write(folder.join("modules.json"), Value::from(all).to_string()).unwrap();
}

fn open(folder: &Path) -> Result<SentenceTransformer, Error> {
    SentenceTransformer::builder(folder.display().to_string()).truncate(true).build()
}

#[test]
fn values_are_those_of_sentence_transformers() {
    let copy = copy("sentence-mean");
    let folder = copy.path();
    write_dense(&folder.join("2_Dense"), 6, HIDDEN, 1, &json!({"bias": true}));
    let gelu = json!({"bias": false, "activation_function": "torch.nn.modules.activation.GELU"});
    write_dense(&folder.join("4_Dense"), 4, 6, 2, &gelu);
    // Printed by sentence-transformers 5.7 for these folders, "The quick brown fox" and "a".
    let one = [("2_Dense", "Dense"), ("3_Normalize", "Normalize")];
    let two = [one[0], one[1], ("4_Dense", "Dense")];
    let three = [two[0], two[1], two[2], ("5_Normalize", "Normalize")];
    #[expect(clippy::type_complexity, reason = "a table that is used once")]
    let expected: [(&[(&str, &str)], &[f32]); 3] = [
        (
            &one,
            &[
                -0.490_835_905,
                0.488_900_632,
                -0.206_264_63,
                -0.476_183_921,
                0.102_387_719,
                -0.490_180_522,
                -0.438_463_241,
                0.431_608_468,
                0.231_976_435,
                -0.434_408_903,
                0.431_879_908,
                -0.438_656_628,
            ],
        ),
        (
            &two,
            &[
                0.198_270_291,
                -0.123_630_047,
                0.115_199_663,
                -0.085_264_422,
                0.230_699_316,
                -0.061_510_141_9,
                -0.019_302_500_4,
                -0.087_597_332_9,
            ],
        ),
        (
            &three,
            &[
                0.723_322_928,
                -0.451_022_923,
                0.420_267_463,
                -0.311_058_76,
                0.904_518_545,
                -0.241_167_009,
                -0.075_680_628_4,
                -0.343_448_848,
            ],
        ),
    ];
    for (modules, values) in expected {
        write_modules(folder, modules);
        let model = open(folder).unwrap();
        let embeddings = model.encode(&["The quick brown fox", "a"]).unwrap();
        assert_eq!((embeddings.dim(), model.steps().len()), (model.dim(), modules.len()));
        assert!(difference(embeddings.data(), values) <= 1e-6, "{modules:?}: {:?}", embeddings.data());
    }
    let name = folder.display().to_string();
    let plain = SentenceTransformer::builder(name).truncate(true).normalize(false).build().unwrap();
    assert!(!plain.normalizes());
    let row = plain.encode(&["The quick brown fox"]).unwrap().into_data();
    assert!(difference(&row, &expected[1].1[..4]) <= 1e-6, "the last Normalize alone is left out: {row:?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let copy = copy("sentence-mean");
    let folder = copy.path();
    write_modules(folder, &[("2_Dense", "Dense")]);
    let dense = folder.join("2_Dense");
    let refused = |expected: &str| {
        let error = open(folder).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("2_Dense has no config.json");
    write_dense(&dense, 2, HIDDEN + 1, 0, &json!({"bias": true}));
    refused("in_features is 19");
    write_dense(&dense, 2, HIDDEN, 0, &json!({"bias": false}));
    fs::write(dense.join("config.json"), r#"{"in_features": 18, "out_features": 2}"#).unwrap();
    refused("1 missing (linear.bias [2])");
    fs::write(dense.join("config.json"), r#"{"in_features": 18, "out_features": 99999999999, "bias": false}"#).unwrap();
    refused("linear.weight must be [99999999999, 18], found [2, 18]");
    write_dense(&dense, 2, HIDDEN, 0, &json!({"bias": true}));
    fs::write(dense.join("config.json"), r#"{"in_features": 18, "out_features": 2, "bias": false}"#).unwrap();
    refused("1 unexpected (linear.bias [2])");
    write_dense(&dense, 2, HIDDEN, 0, &json!({"bias": true, "activation_function": "my.own.Activation"}));
    refused("activation_function is my.own.Activation");
    write_dense(&dense, 2, HIDDEN, 0, &json!({"bias": true, "module_input_name": "token_embeddings"}));
    refused("module_input_name is token_embeddings");
    fs::remove_file(dense.join("model.safetensors")).unwrap();
    write_modules(folder, &[("2_Dense", "LayerNorm")]);
    refused("missing field `dimension`");
}
