//! Checkpoints whose weights are packed as MLX packs them. That the codes mean what MLX means is tested in `mlxt-backend`
//! and by scripts/check-quantised.py; here, that every part of a model finds its own, and what must be refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use mlxt_backend::conformance::random::Random;
use mlxt_backend::{Backend, DType, HostTensor, Precision, Quantised, Reference, Scales, TokenBatch};
use mlxt_cpu::{Cpu, CpuOptions};
use mlxt_models::{Config, Encoder, Error, Packing, Role, Task, Weights, inspect};
use safetensors::Dtype;
use tempfile::TempDir;

use crate::bad_checkpoints::{Tensors, misfit, write};
use crate::fixtures::distance;

const HIDDEN: usize = 64;
const WIDE: usize = 96;
const VOCABULARY: usize = 40;

/// A `BertForMaskedLM` with a tied decoder, of random weights: its tensors by name.
fn plain() -> BTreeMap<String, HostTensor> {
    let random = &mut Random::new(3);
    let mut all = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        let values = random.normals(shape.iter().product(), 0.2);
        all.insert(name.to_owned(), HostTensor::from_f32(shape, &values).unwrap());
    };
    let layer = "bert.encoder.layer.0";
    for (name, entries) in [("word", VOCABULARY), ("position", 16), ("token_type", 2)] {
        add(&format!("bert.embeddings.{name}_embeddings.weight"), &[entries, HIDDEN]);
    }
    let mut linear = |name: String, outputs: usize, inputs: usize| {
        add(&format!("{name}.weight"), &[outputs, inputs]);
        add(&format!("{name}.bias"), &[outputs]);
    };
    for part in ["query", "key", "value"] {
        linear(format!("{layer}.attention.self.{part}"), HIDDEN, HIDDEN);
    }
    linear(format!("{layer}.attention.output.dense"), HIDDEN, HIDDEN);
    linear(format!("{layer}.intermediate.dense"), WIDE, HIDDEN);
    linear(format!("{layer}.output.dense"), HIDDEN, WIDE);
    linear("cls.predictions.transform.dense".into(), HIDDEN, HIDDEN);
    let norms = [
        "bert.embeddings.LayerNorm".to_owned(),
        format!("{layer}.attention.output.LayerNorm"),
        format!("{layer}.output.LayerNorm"),
        "cls.predictions.transform.LayerNorm".to_owned(),
    ];
    for name in norms.iter().flat_map(|norm| [format!("{norm}.weight"), format!("{norm}.bias")]) {
        add(&name, &[HIDDEN]);
    }
    add("cls.predictions.bias", &[VOCABULARY]);
    all
}

/// The same with every matrix packed, 4 bits in groups of 32, but the positions, which are of 8 bits; and with the weights
/// that the codes stand for.
fn packed() -> (Tensors, Tensors) {
    let (mut packed, mut unpacked) = (Tensors::new(), Tensors::new());
    let kept = |tensor: &HostTensor| (Dtype::F32, tensor.shape().to_vec(), tensor.bytes().to_vec());
    for (name, tensor) in plain() {
        let &[outputs, inputs] = tensor.shape() else {
            unpacked.insert(name.clone(), kept(&tensor));
            packed.insert(name, kept(&tensor));
            continue;
        };
        let bits = if name.contains("position_embeddings") { 8 } else { 4 };
        let q = Quantised::affine(&tensor, bits, 32).unwrap();
        unpacked.insert(name.clone(), kept(&q.full()));
        let Scales::Affine { scales, biases } = q.scales() else { panic!("{q:?}") };
        let module = name.strip_suffix(".weight").unwrap();
        packed.insert(format!("{module}.scales"), kept(scales));
        packed.insert(format!("{module}.biases"), kept(biases));
        packed.insert(name, (Dtype::U32, vec![outputs, inputs * bits / 32], q.codes().to_vec()));
    }
    (packed, unpacked)
}

const PACKED: &str = r#", "quantization": {"group_size": 32, "bits": 4, "mode": "affine",
    "bert.embeddings.position_embeddings": {"group_size": 32, "bits": 8}}"#;

fn folder(tensors: &Tensors, settings: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let config = format!(
        r#"{{"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": {HIDDEN}, "num_hidden_layers": 1,
            "num_attention_heads": 4, "intermediate_size": {WIDE}, "vocab_size": {VOCABULARY},
            "max_position_embeddings": 16, "type_vocab_size": 2{settings}}}"#
    );
    fs::write(folder.path().join("config.json"), config).unwrap();
    write(&folder.path().join("model.safetensors"), tensors);
    folder
}

/// Hidden states and logits of three sequences.
fn run<B: Backend>(backend: &B, folder: &Path) -> (Vec<f32>, Vec<f32>) {
    let (config, weights) = (Config::open(folder).unwrap(), Weights::open(folder).unwrap());
    let (encoder, head) = Encoder::load_for(backend, &config, &weights, Precision::F32, Task::FillMask).unwrap();
    let batch = TokenBatch::from_sequences(&[vec![2, 7, 9, 3], vec![5], (0..16).collect()]).unwrap();
    let hidden = encoder.forward(backend, &batch).unwrap();
    let logits = head.forward(backend, &hidden.tensor).unwrap();
    (backend.read(&hidden.tensor).unwrap(), backend.read(&logits).unwrap())
}

#[test]
fn packed_weights_are_those_that_the_codes_stand_for() {
    let (packed, unpacked) = packed();
    let (packed, unpacked) = (folder(&packed, PACKED), folder(&unpacked, ""));
    let wanted = run(&Reference, unpacked.path());
    assert_eq!(run(&Reference, packed.path()), wanted);
    let cpu = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).unwrap();
    assert_eq!(run(&cpu, packed.path()), run(&cpu, unpacked.path()));
    assert!(distance(&run(&cpu, packed.path()).1, &wanted.1) < 1e-4);
    // The other precisions take the weights that they are.
    let (config, weights) = (Config::open(packed.path()).unwrap(), Weights::open(packed.path()).unwrap());
    for precision in [Precision::F16, Precision::Bf16, Precision::Int8, Precision::Q4] {
        assert!(Encoder::load(&cpu, &config, &weights, precision).is_ok(), "{precision}");
    }
}

#[test]
fn inspection_counts_weights_and_not_words() {
    let (packed, unpacked) = packed();
    let (packed, unpacked) = (inspect(folder(&packed, PACKED).path()), inspect(folder(&unpacked, "").path()));
    let (packed, unpacked) = (packed.unwrap(), unpacked.unwrap());
    assert!(packed.misfit.is_empty(), "{}", packed.misfit);
    assert_eq!(packed.parameters(), unpacked.parameters());
    assert!(packed.bytes() < unpacked.bytes() / 3);
    assert_eq!(packed.config.quantisation().unwrap().to_string(), "affine, 4 bits, groups of 32 (1 module otherwise)");
    let scales = packed.tensors.iter().filter(|(tensor, _)| tensor.name.ends_with(".scales"));
    let scales: Vec<_> = scales.map(|(tensor, role)| (tensor.name.starts_with("bert."), *role)).collect();
    assert_eq!(scales.iter().filter(|(base, role)| *base == (*role == Role::Base)).count(), scales.len());
    assert_eq!(scales.len(), 10);
}

#[test]
fn all_packed_tensors_that_do_not_fit_are_reported_together() {
    let (mut tensors, _) = packed();
    let layer = "bert.encoder.layer.0";
    tensors.remove(&format!("{layer}.attention.self.key.scales")).unwrap();
    tensors.remove(&format!("{layer}.attention.self.value.biases")).unwrap();
    tensors.insert(format!("{layer}.output.dense.scales"), (Dtype::F32, vec![HIDDEN, 2], vec![0; HIDDEN * 8]));
    tensors.insert(format!("{layer}.output.dense.weight"), (Dtype::U32, vec![HIDDEN, 1], vec![0; HIDDEN * 4]));
    tensors.insert(format!("{layer}.intermediate.dense.scales"), (Dtype::U8, vec![WIDE, 2], vec![0; WIDE * 2]));
    tensors.insert(format!("{layer}.intermediate.dense.global_scale"), (Dtype::F32, vec![1], vec![0; 4]));
    let (found, message) = misfit(&folder(&tensors, PACKED));
    assert_eq!((found.missing.len(), found.misshapen.len(), found.untyped.len(), found.unexpected.len()), (2, 2, 1, 1));
    for part in [
        "2 missing (bert.encoder.layer.0.attention.self.key.scales [64, 2], bert.encoder.layer.0.attention.self.value.biases [64, 2])",
        "output.dense.scales must be [64, 3], found [64, 2], ",
        "output.dense.weight must be [64, 12], found [64, 1])",
        "1 of the wrong type (bert.encoder.layer.0.intermediate.dense.scales must be F32, F16 or BF16, found U8)",
        "1 unexpected (bert.encoder.layer.0.intermediate.dense.global_scale [1])",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_config_that_packs_otherwise_is_refused() {
    let (tensors, unpacked) = packed();
    // Without a word of it the words are not weights; scales belong to nothing.
    let (found, message) = misfit(&folder(&tensors, ""));
    assert_eq!((found.misshapen.len(), found.unexpected.len()), (9, 18), "{message}");
    // Groups that the inputs are no multiple of.
    let (found, message) = misfit(&folder(&tensors, r#", "quantization": {"group_size": 128, "bits": 4}"#));
    assert_eq!(found.misshapen.len(), 9, "{message}");
    // Another number of bits, floats in place of numbers, modules that should not be packed.
    let (found, _) = misfit(&folder(&tensors, r#", "quantization": {"group_size": 32, "bits": 8}"#));
    assert_eq!(found.misshapen.len(), 8);
    let (found, _) = misfit(&folder(&tensors, r#", "quantization": {"mode": "mxfp4"}"#));
    assert_eq!((found.misshapen.len(), found.untyped.len(), found.unexpected.len()), (1, 9, 9));
    let without = PACKED.replace(r#""mode": "affine""#, r#""bert.encoder.layer.0.output.dense": false"#);
    let (found, _) = misfit(&folder(&tensors, &without));
    assert_eq!((found.misshapen.len(), found.unexpected.len()), (1, 2));
    // Where nothing is packed, nothing is asked for: converters leave out what does not fit their groups.
    assert_eq!(run(&Reference, folder(&unpacked, PACKED).path()), run(&Reference, folder(&unpacked, "").path()));
}

#[test]
fn scales_may_be_halves() {
    let (mut tensors, _) = packed();
    for (name, tensor) in &mut tensors {
        if name.ends_with(".scales") || name.ends_with(".biases") {
            let full = HostTensor::new(DType::F32, tensor.1.clone(), tensor.2.clone().into()).unwrap();
            *tensor = (Dtype::F16, tensor.1.clone(), full.cast(DType::F16).bytes().to_vec());
        }
    }
    let halves = run(&Reference, folder(&tensors, PACKED).path());
    let full = run(&Reference, folder(&packed().0, PACKED).path());
    let moved = distance(&halves.0, &full.0);
    assert!(moved > 0.0 && moved < 0.05, "{moved}");
}

#[test]
fn what_is_packed_here_is_read_here() {
    let plain: Tensors =
        plain().into_iter().map(|(name, t)| (name, (Dtype::F32, t.shape().to_vec(), t.bytes().to_vec()))).collect();
    let source = folder(&plain, "");
    let weights = Weights::open(source.path()).unwrap();
    let mut heard = Vec::new();
    for (tables, packed, kept) in [(true, 10, 16), (false, 7, 19)] {
        for (bits, group) in [(8, 32), (4, 64)] {
            let mut file = Vec::new();
            let packing = Packing { bits, group, tables };
            let done = weights.pack(packing, &mut file, &mut |name| heard.push(name.to_owned())).unwrap();
            // The 96 inputs of the second product of a layer are no whole number of groups of 64.
            let unfit = usize::from(group == 64);
            assert_eq!((done.packed, done.kept, done.unfit.len()), (packed - unfit, kept + unfit, unfit));
            assert_eq!(done.bytes, file.len() as u64);
            let settings = format!(r#", "quantization": {{"group_size": {group}, "bits": {bits}}}"#);
            let target = folder(&Tensors::new(), &settings);
            fs::write(target.path().join("model.safetensors"), &file).unwrap();
            let moved = distance(&run(&Reference, target.path()).0, &run(&Reference, source.path()).0);
            // Steps of a 255th or 15th of about 4 deviations of 0.2, rounded to the nearest.
            assert!(moved > 0.0 && moved < if bits == 8 { 0.1 } else { 1.5 }, "{bits} bits: {moved}");

            let again = Weights::open(target.path()).unwrap().pack(packing, &mut Vec::new(), &mut |_| {});
            assert!(matches!(again, Err(Error::Packed { .. })), "{again:?}");
        }
    }
    assert_eq!(heard.len(), 10 + 9 + 7 + 6);
}

/// A disk without room.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_packed_says_why() {
    let mut tensors: Tensors = BTreeMap::new();
    tensors.insert(
        "a.weight".into(),
        (Dtype::F32, vec![1, 32], [0.0_f32, f32::INFINITY].repeat(16).iter().flat_map(|v| v.to_le_bytes()).collect()),
    );
    let weights = folder(&tensors, "");
    let weights = Weights::open(weights.path()).unwrap();
    let pack = |bits, group| {
        weights.pack(Packing { bits, group, tables: false }, &mut Vec::new(), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(pack(4, 32).contains("the weight at element 1 is inf"), "{}", pack(4, 32));
    assert!(pack(7, 32).contains("bits must be one of"), "{}", pack(7, 32));
    assert!(pack(4, 0).contains("groups of"), "{}", pack(4, 0));
    let full = weights.pack(Packing { bits: 4, group: 64, tables: false }, &mut Full, &mut |_| {});
    assert!(matches!(full, Err(Error::Write { .. })), "{full:?}");
}
