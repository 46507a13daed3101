//! The real all-MiniLM-L6-v2, where `MLXT_TEST_MINILM` names its folder.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::path::PathBuf;

use common::{difference, fixtures};
use mlx_transformers::{AutoTokenizer, Error, SentenceTransformer};

/// The folder; says aloud if there is none. Where `MLXT_FORBID_SKIPS` is set, that is a failure.
fn minilm() -> Option<PathBuf> {
    let folder = std::env::var_os("MLXT_TEST_MINILM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: no MiniLM (set MLXT_TEST_MINILM to its folder)");
        assert!(std::env::var_os("MLXT_FORBID_SKIPS").is_none(), "a test was skipped");
    }
    folder
}

fn sentences() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("text/sentences.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn known_numbers() {
    let Some(folder) = minilm() else { return };
    let model = SentenceTransformer::from_pretrained(folder.display().to_string()).unwrap();
    assert!(model.is_sentence_transformer() && model.normalizes());
    assert_eq!((model.dim(), model.max_length()), (384, 256));
    let embeddings = model.encode(&["hello world"]).unwrap();
    assert_eq!(embeddings.tokens(), [4]);
    // Printed by sentence-transformers 5.7.
    let expected = [-0.034_477, 0.031_023, 0.006_735, 0.026_109, -0.039_362];
    let off = difference(&embeddings.row(0)[..5], &expected);
    assert!(off <= 1e-6, "off by {off}");
}

#[test]
fn stored_truncation_and_padding_are_not_the_models() {
    let Some(folder) = minilm() else { return };
    let tokenizer = AutoTokenizer::from_pretrained(folder.display().to_string()).unwrap();
    assert_eq!(tokenizer.encode("hello world").unwrap().ids, [101, 7592, 2088, 102]);
    assert_eq!(tokenizer.encode(&"a ".repeat(200)).unwrap().ids.len(), 202);
    assert_eq!(tokenizer.mask_token(), Some("[MASK]"));
    assert_eq!(tokenizer.model_max_length(), Some(512));
}

#[test]
fn the_old_vocabulary_gives_the_same_tokens() {
    let Some(folder) = minilm() else { return };
    let old = tempfile::tempdir().unwrap();
    for file in ["vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "config.json"] {
        std::fs::copy(folder.join(file), old.path().join(file)).unwrap();
    }
    let old = AutoTokenizer::from_pretrained(old.path().display().to_string()).unwrap();
    let new = AutoTokenizer::from_pretrained(folder.display().to_string()).unwrap();
    let sentences = sentences();
    assert_eq!(old.encode_batch(&sentences).unwrap(), new.encode_batch(&sentences).unwrap());
    assert_eq!((old.vocab_size(), old.mask_token()), (new.vocab_size(), new.mask_token()));
}

#[test]
fn too_long_is_an_error_that_names_the_limit_and_cutting_is_an_offer() {
    let Some(folder) = minilm() else { return };
    let name = folder.display().to_string();
    let long = "word ".repeat(300);
    let model = SentenceTransformer::from_pretrained(&name).unwrap();
    let error = model.encode(&["short", &long]).unwrap_err();
    assert!(matches!(error, Error::TooLong { index: 1, tokens: 302, limit: 256 }), "{error}");
    let cut = SentenceTransformer::builder(&name).truncate(true).build().unwrap();
    assert_eq!(cut.encode(&["short", &long]).unwrap().tokens(), [3, 256]);
    let whole = SentenceTransformer::builder(&name).max_length(512).build().unwrap();
    assert_eq!(whole.encode(&[&long]).unwrap().tokens(), [302]);
}

#[test]
fn a_batch_is_its_sentences_alone() {
    let Some(folder) = minilm() else { return };
    let name = folder.display().to_string();
    let sentences = sentences();
    let together = SentenceTransformer::builder(&name).truncate(true).build().unwrap().encode(&sentences).unwrap();
    let small = SentenceTransformer::builder(&name).truncate(true).batch_tokens(100).threads(1).build().unwrap();
    assert_eq!(together.data(), small.encode(&sentences).unwrap().data());
    for (i, sentence) in sentences.iter().enumerate().step_by(7) {
        assert_eq!(small.encode(&[sentence]).unwrap().row(0), together.row(i), "{sentence:?}");
    }
}
