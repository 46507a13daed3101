//! Answers do not depend on what else is in a call, a batch or the process: bit for bit on the CPU.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::collections::HashMap;
use std::sync::OnceLock;
use std::thread;

use common::fixtures;
use mlx_transformers::{AutoModel, AutoTokenizer, Builder, Device, Embeddings, Error, Load, SentenceTransformer};
use proptest::prelude::*;

fn name() -> String {
    fixtures().join("bert").display().to_string()
}

fn cutting<T: Load>(builder: Builder<T>) -> T {
    builder.device(Device::Cpu).truncate(true).build().unwrap()
}

fn model() -> &'static SentenceTransformer {
    static MODEL: OnceLock<SentenceTransformer> = OnceLock::new();
    MODEL.get_or_init(|| cutting(SentenceTransformer::builder(name())))
}

#[test]
fn everything_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<SentenceTransformer>();
    shared::<AutoModel>();
    shared::<AutoTokenizer>();
    shared::<Builder<SentenceTransformer>>();
    shared::<Embeddings>();
    shared::<Error>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_batch_is_its_texts_alone(
        texts in prop::collection::vec("[a-zа-я敏捷 .,]{0,60}|\\PC{0,30}", 1..40),
        budget in 1_usize..400,
        threads in 1_usize..4,
    ) {
        let other = cutting(SentenceTransformer::builder(name()).batch_tokens(budget).threads(threads));
        let together = other.encode(&texts).unwrap();
        for (i, text) in texts.iter().enumerate() {
            let alone = model().encode(&[text]).unwrap();
            prop_assert_eq!(alone.row(0), together.row(i));
            prop_assert_eq!(alone.tokens()[0], together.tokens()[i]);
            prop_assert!(alone.row(0).iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn features_of_a_batch_are_those_of_its_texts_alone() {
    let model = cutting(AutoModel::builder(name()).batch_tokens(50));
    let texts = ["a quick fox", "", "the", "быстрая лиса", "a", "the lazy dog sleeps"];
    let together = model.features(&texts).unwrap();
    for (text, features) in texts.iter().zip(&together) {
        assert_eq!(model.features(&[text]).unwrap()[0], *features, "{text:?}");
        assert_eq!(features.hidden.len(), features.ids.len() * features.hidden_size);
        assert_eq!(features.row(0).len(), model.hidden_size());
    }
}

#[test]
fn ten_thousand_texts_keep_their_order() {
    let distinct: Vec<String> = (0..97).map(|i| format!("{} fox {i}", "a ".repeat(i % 9))).collect();
    let rows: HashMap<&str, Vec<f32>> =
        distinct.iter().map(|text| (text.as_str(), model().encode(&[text]).unwrap().into_data())).collect();
    // 89 and 97 have no common divisor: every text comes at every place of the pattern.
    let texts: Vec<&str> = (0..10_000).map(|i| distinct[i * 89 % 97].as_str()).collect();
    let embeddings = model().encode(&texts).unwrap();
    assert_eq!(embeddings.len(), texts.len());
    for (text, row) in texts.iter().zip(embeddings.iter()) {
        assert_eq!(row, rows[text].as_slice(), "{text:?}");
    }
}

#[test]
fn eight_threads_share_one_model() {
    let texts: Vec<String> = (0..60).map(|i| format!("{} fox {i}", "the lazy ".repeat(i % 5))).collect();
    let expected = model().encode(&texts).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(model().encode(&texts).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn no_texts_are_no_embeddings() {
    let embeddings = model().encode::<&str>(&[]).unwrap();
    assert!(embeddings.is_empty() && embeddings.data().is_empty());
    assert_eq!(embeddings.dim(), model().dim());
}

#[test]
fn info_says_what_ran() {
    let model = SentenceTransformer::builder(name()).device(Device::Cpu).threads(2).build().unwrap();
    let embeddings = model.encode(&["a"]).unwrap();
    let info = embeddings.info();
    assert_eq!((info.device.device.as_str(), info.precision.name(), info.threads), ("cpu", "f32", 2));
    assert!(info.why == "asked for" && !info.device.hardware.is_empty(), "{info:?}");
    // Without a device asked for it is the fastest of this machine, and said why.
    let info = SentenceTransformer::builder(name()).build().unwrap().info().clone();
    let words = if info.device.device == "cpu" { "no GPU can be used" } else { "is the fastest device" };
    assert!(info.why.contains(words), "{info:?}");
}

#[test]
fn progress_counts_texts() {
    let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&done);
    let listener = move |event: mlx_transformers::Event<'_>| {
        if let mlx_transformers::Event::Computed { done, total } = event {
            heard.lock().unwrap().push((done, total));
        }
    };
    let model = SentenceTransformer::builder(name()).batch_tokens(1).progress(listener).build().unwrap();
    model.encode(&["a", "the fox", ""]).unwrap();
    assert_eq!(*done.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
}
