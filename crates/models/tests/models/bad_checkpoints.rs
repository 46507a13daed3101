//! Checkpoints that are damaged, incomplete or hostile: each gives its own error, which names the file or tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::fixtures::fixture;
use mlxt_backend::{Precision, Reference, TokenBatch};
use mlxt_models::{Config, Encoder, Error, Misfit, Role, Weights, inspect};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use tempfile::TempDir;

/// Tensors of a checkpoint by name: element type, shape, bytes.
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of the fixture `bert`.
fn bert() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture("bert").join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// A copy of the fixture `xlm-roberta`, which is in shards.
fn sharded() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(fixture("xlm-roberta")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// A copy of `bert` with other tensors.
pub(crate) fn bert_with(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = bert();
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    write(&file, &tensors);
    folder
}

pub(crate) fn write(file: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, file).unwrap();
}

fn zeros(shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()])
}

fn load(folder: &Path) -> Result<Encoder<Reference>, Error> {
    let config = Config::open(folder)?;
    Encoder::load(&Reference, &config, &Weights::open(folder)?, Precision::F32)
}

pub(crate) fn misfit(folder: &TempDir) -> (Misfit, String) {
    match load(folder.path()) {
        Err(error @ Error::Misfit(_)) => {
            let message = error.to_string();
            let Error::Misfit(misfit) = error else { unreachable!() };
            (*misfit, message)
        }
        other => panic!("{:?}", other.map(|_| "loaded")),
    }
}

/// The error of opening weights, which must be of one line and name `file`.
fn refused(folder: &TempDir, file: &str) -> Error {
    let error = Weights::open(folder.path()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(file) && !message.contains('\n'), "{message}");
    error
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    let folder = bert();
    let file = folder.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for length in [0, 7, 8, 100, 5000, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = refused(&folder, "model.safetensors");
        assert!(matches!(error, Error::Safetensors { found, .. } if found == length as u64), "{length}: {error:?}");
    }
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    let folder = bert();
    let file = folder.path().join("model.safetensors");
    for length in [u64::MAX, 1 << 40, 99_999_999, 1 << 20] {
        let mut bytes = fs::read(&file).unwrap();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        assert!(matches!(refused(&folder, "model.safetensors"), Error::Safetensors { .. }), "{length}");
    }
}

#[test]
fn folders_without_weights_say_what_to_do() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(Config::open(folder.path()), Err(Error::NoConfig { .. })));
    assert!(matches!(refused(&folder, "model.safetensors.index.json"), Error::NoWeights { .. }));
    fs::write(folder.path().join("tf_model.h5"), b"\x89HDF").unwrap();
    let error = refused(&folder, "tf_model.h5");
    assert!(matches!(error, Error::OtherFormat { .. }));
    assert!(error.to_string().contains("save_pretrained"), "{error}");
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert!(matches!(refused(&folder, "model.safetensors"), Error::Read { .. }));
}

#[test]
fn an_index_cannot_leave_its_folder() {
    let folder = sharded();
    let index = folder.path().join("model.safetensors.index.json");
    for shard in ["../model.safetensors", "/etc/passwd", "a/../../b", "..", ".", ""] {
        fs::write(&index, format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#)).unwrap();
        let error = refused(&folder, "model.safetensors.index.json");
        assert!(matches!(&error, Error::ShardOutside { shard: found, .. } if found == shard), "{shard}: {error:?}");
    }
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_refused() {
    let folder = sharded();
    let index = folder.path().join("model.safetensors.index.json");
    let whole = fs::read_to_string(&index).unwrap();
    let second = "model-00002-of-00003.safetensors";

    let renamed = whole.replacen("embeddings.word_embeddings.weight", "embeddings.wrong.weight", 1);
    fs::write(&index, renamed).unwrap();
    let error = refused(&folder, "embeddings.wrong.weight");
    assert!(matches!(error, Error::NotInShard { count: 1, .. }), "{error:?}");

    for text in ["{", "[]", "{}", r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 1}}"#] {
        fs::write(&index, text).unwrap();
        assert!(matches!(refused(&folder, "index.json"), Error::Json { .. }), "{text}");
    }

    fs::write(&index, &whole).unwrap();
    fs::rename(folder.path().join(second), folder.path().join("aside")).unwrap();
    let error = refused(&folder, "index.json");
    assert!(matches!(&error, Error::ShardMissing { shard, .. } if shard == second), "{error:?}");

    fs::copy(folder.path().join("model-00001-of-00003.safetensors"), folder.path().join(second)).unwrap();
    let error = refused(&folder, second);
    assert!(matches!(error, Error::Duplicate { .. }), "{error:?}");
}

#[test]
fn all_that_does_not_fit_is_reported_together() {
    let folder = bert_with(|tensors| {
        for part in ["query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias"] {
            tensors.remove(&format!("encoder.layer.1.attention.self.{part}")).unwrap();
        }
        tensors.insert("embeddings.LayerNorm.weight".into(), zeros(&[17]));
        tensors.insert("encoder.layer.0.output.dense.weight".into(), zeros(&[50, 18]));
        tensors.insert("encoder.layer.0.output.dense.bias".into(), (Dtype::F64, vec![18], vec![0; 8 * 18]));
        tensors.insert("encoder.layer.2.output.dense.bias".into(), zeros(&[18]));
        tensors.insert("encoder.layer.0.attention.self.distance_embedding.weight".into(), zeros(&[89, 9]));
        tensors.insert("encoder.evil\n\u{1b}[2J".into(), zeros(&[1]));
        tensors.insert("classifier.weight".into(), zeros(&[2, 18]));
    });
    let (found, message) = misfit(&folder);
    assert_eq!((found.missing.len(), found.misshapen.len(), found.untyped.len(), found.unexpected.len()), (6, 2, 1, 3));
    assert_eq!(found.missing[0].name, "encoder.layer.1.attention.self.key.bias");
    assert_eq!((&found.misshapen[0].expected[..], &found.misshapen[0].found[..]), (&[18][..], &[17][..]));
    for part in [
        "not the bert that config.json describes",
        "6 missing (encoder.layer.1.attention.self.key.bias [18], ",
        "query.weight [18, 18], encoder.layer.1.attention.self.value.bias [18] and 1 more)",
        "2 misshapen (embeddings.LayerNorm.weight must be [18], found [17], ",
        "1 of the wrong type (encoder.layer.0.output.dense.bias must be F32, F16 or BF16, found F64)",
        "3 unexpected (encoder.evil\\n\\u{1b}[2J [1], encoder.layer.0.attention.self.distance_embedding.weight [89, 9], ",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains("classifier") && !message.contains('\n'), "{message}");
    assert_eq!(inspect(folder.path()).unwrap().misfit, found);
}

#[test]
fn a_config_of_fewer_layers_than_the_checkpoint_is_refused() {
    let folder = bert();
    let file = folder.path().join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 1"#)).unwrap();
    let (found, _) = misfit(&folder);
    assert_eq!((found.missing.len(), found.misshapen.len(), found.unexpected.len()), (0, 0, 16));
    assert!(found.unexpected.iter().all(|t| t.name.starts_with("encoder.layer.1.")));
}

#[test]
fn a_pooler_is_whole_or_absent() {
    let without = bert_with(|tensors| tensors.retain(|name, _| !name.starts_with("pooler")));
    let encoder = load(without.path()).unwrap();
    assert!(!encoder.has_pooler());
    let hidden = encoder.forward(&Reference, &TokenBatch::from_sequences(&[[2, 3]]).unwrap()).unwrap();
    assert!(matches!(encoder.pooler(&Reference, &hidden), Err(Error::NoPooler)));
    for half in ["pooler.dense.weight", "pooler.dense.bias"] {
        let (found, _) = misfit(&bert_with(|tensors| drop(tensors.remove(half).unwrap())));
        assert_eq!((found.missing.len(), found.missing[0].name.as_str()), (1, half));
    }
}

#[test]
fn a_norm_that_nobody_uses_is_left_alone() {
    // DeBERTa's without relative attention have it all the same.
    let folder = bert_with(|tensors| {
        for name in ["encoder.LayerNorm.weight", "encoder.LayerNorm.bias"] {
            tensors.insert(name.into(), zeros(&[18]));
        }
    });
    assert!(load(folder.path()).is_ok());
    let folder = bert_with(|tensors| drop(tensors.insert("encoder.Norm.weight".into(), zeros(&[18]))));
    assert!(load(folder.path()).is_err());
}

#[test]
fn weights_of_another_family_are_refused() {
    let folder = bert();
    fs::copy(fixture("distilbert").join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let (found, _) = misfit(&folder);
    assert_eq!(found.missing.len(), 37);
    assert!(found.unexpected.is_empty(), "another family's prefix is outside the namespace: {:?}", found.unexpected);
}

#[test]
fn inspect_says_what_each_tensor_is() {
    let found = inspect(fixture("bert-pretraining")).unwrap();
    assert!(found.misfit.is_empty());
    let role = |name: &str| found.tensors.iter().find(|(tensor, _)| tensor.name == name).unwrap().1;
    assert_eq!(role("bert.embeddings.LayerNorm.gamma"), Role::Base);
    assert_eq!(role("bert.pooler.dense.bias"), Role::Base);
    assert_eq!(role("bert.embeddings.position_ids"), Role::Buffer);
    assert_eq!(role("cls.predictions.transform.dense.weight"), Role::Head);
    let (cols, wide) = (15, 27);
    let embeddings = (290 + 37 + 3 + 2) * cols;
    let layer = 4 * cols * (cols + 1) + 2 * 2 * cols + wide * (cols + 1) + cols * (wide + 1);
    assert_eq!(found.parameters(), (embeddings + 3 * layer + cols * (cols + 1)) as u64);
    let all: u64 = found.tensors.iter().map(|(tensor, _)| tensor.bytes as u64).sum();
    assert_eq!(found.bytes(), all);
}

#[test]
fn tokens_outside_the_model_are_named() {
    let encoder = load(&fixture("bert")).unwrap();
    let limit = encoder.config().max_tokens();
    let run = |ids: Vec<u32>, types: Vec<u32>, lengths: &[usize]| {
        encoder.forward(&Reference, &TokenBatch::new(ids, types, lengths).unwrap()).err().map(|e| e.to_string())
    };
    let long = run(vec![2; limit + 4], vec![0; limit + 4], &[3, limit + 1]).unwrap();
    assert_eq!(long, format!("sequence 1 has {} tokens, and the model takes at most {limit}: truncate it", limit + 1));
    let id = run(vec![2, 3, 2, 9999, 3], vec![0; 5], &[2, 3]).unwrap();
    assert!(id.starts_with("token id 9999 at token 1 of sequence 1 is outside the model's 0.."), "{id}");
    let type_id = run(vec![2, 3], vec![0, 2], &[2]).unwrap();
    assert_eq!(type_id, "token type id 2 at token 1 of sequence 0 is outside the model's 0..2");
    assert!(run(vec![2; limit], vec![1; limit], &[limit]).is_none());

    let distilbert = load(&fixture("distilbert")).unwrap();
    let typed = TokenBatch::new(vec![2, 3], vec![0, 7], &[2]).unwrap();
    assert!(distilbert.forward(&Reference, &typed).is_ok(), "a model without token types does not look at them");
}

proptest! {
    #[test]
    fn any_file_gives_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        let _ = Weights::open(folder.path());
        fs::write(folder.path().join("config.json"), &bytes).unwrap();
        let _ = Config::open(folder.path());
    }

    /// One byte of the header changed: refused, or loaded as something that still fits.
    #[test]
    fn a_flipped_header_never_panics(place in 0_usize..2000, bit in 0_u32..8) {
        let folder = bert();
        let file = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        bytes[place] ^= 1 << bit;
        fs::write(&file, bytes).unwrap();
        let _ = load(folder.path());
    }

    #[test]
    fn any_settings_give_an_answer(
        family in "(bert|roberta|xlm-roberta|camembert|distilbert|electra)",
        name in "(hidden_size|dim|n_heads|num_attention_heads|num_hidden_layers|vocab_size|pad_token_id|max_position_embeddings|embedding_size|layer_norm_eps|type_vocab_size|hidden_act|pruned_heads)",
        value in r#"(-?[0-9]{1,20}(\.[0-9]{1,3})?(e-?[0-9]{1,3})?|null|true|"[a-z0-9_]{0,6}"|\[\]|\{\})"#,
    ) {
        let _ = Config::from_json(&format!(r#"{{"model_type": "{family}", "{name}": {value}}}"#));
    }
}
