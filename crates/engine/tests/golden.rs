//! From text to numbers on every fixture: what Hugging Face `transformers` and sentence-transformers give, on the CPU or
//! the device that `MLXT_TEST_DEVICE` names.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use common::{Golden, allowed, device, difference, goldens};
use mlx_transformers::{AutoModel, AutoTokenizer, Config, SentenceTransformer, TokenBatch};

const HIDDEN: f32 = 1e-5;
const EMBEDDING: f32 = 1e-6;

/// A model without the limits that its files recommend, which `transformers` does not enforce.
fn model(golden: &Golden) -> AutoModel {
    let positions = Config::open(&golden.folder).unwrap().max_tokens();
    AutoModel::builder(golden.name()).device(device()).max_length(positions).build().unwrap()
}

#[test]
fn tokens_are_those_of_transformers() {
    let mut pairs = 0;
    for golden in goldens() {
        let tokenizer = AutoTokenizer::from_pretrained(golden.name()).unwrap();
        for case in &golden.cases {
            let encoding = match &case.pair {
                Some(pair) => tokenizer.encode_pair(&case.text, pair).unwrap(),
                None => tokenizer.encode(&case.text).unwrap(),
            };
            pairs += usize::from(case.pair.is_some());
            assert_eq!(encoding.ids, case.ids, "{} {:?}", golden.name(), case.text);
            assert_eq!(encoding.tokens, case.tokens, "{} {:?}", golden.name(), case.text);
            assert_eq!(encoding.type_ids, case.type_ids, "{} {:?}", golden.name(), case.text);
            assert_eq!(encoding.offsets.len(), case.ids.len());
            let characters = case.text.chars().count().max(case.pair.iter().flat_map(|p| p.chars()).count());
            assert!(encoding.offsets.iter().all(|&(start, end)| start <= end && end <= characters));
        }
    }
    assert!(pairs > 0);
}

#[test]
fn features_are_those_of_transformers() {
    for golden in goldens() {
        let model = model(&golden);
        let (places, texts): (Vec<usize>, Vec<&str>) = golden
            .cases
            .iter()
            .enumerate()
            .filter(|(_, case)| case.pair.is_none())
            .map(|(place, case)| (place, case.text.as_str()))
            .unzip();
        let features = model.features(&texts).unwrap();
        assert_eq!(features.len(), texts.len());
        for (place, features) in places.into_iter().zip(&features) {
            let case = &golden.cases[place];
            assert_eq!((&features.ids, &features.tokens), (&case.ids, &case.tokens));
            let off = difference(&features.hidden, golden.get("hidden", place).unwrap());
            assert!(off <= allowed(HIDDEN), "{} {:?}: hidden off by {off}", golden.name(), case.text);
            if let Some(expected) = golden.get("pooler", place) {
                let off = difference(features.pooler.as_deref().unwrap(), expected);
                assert!(off <= allowed(HIDDEN), "{} {:?}: pooler off by {off}", golden.name(), case.text);
            }
        }
    }
}

#[test]
fn pairs_run_through_the_lower_door() {
    for golden in goldens() {
        let model = model(&golden);
        for (place, case) in golden.cases.iter().enumerate().filter(|(_, case)| case.pair.is_some()) {
            let batch = TokenBatch::new(case.ids.clone(), case.type_ids.clone(), &[case.ids.len()]).unwrap();
            let off = difference(model.forward(&batch).unwrap().hidden.data(), golden.get("hidden", place).unwrap());
            assert!(off <= allowed(HIDDEN), "{}: off by {off}", golden.name());
        }
    }
}

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    for golden in goldens() {
        let plain = !golden.folder.join("modules.json").is_file();
        let positions = Config::open(&golden.folder).unwrap().max_tokens();
        let builder = SentenceTransformer::builder(golden.name()).device(device()).truncate(true);
        // A plain checkpoint's golden embedding is that of the whole text.
        let model = if plain { builder.max_length(positions) } else { builder }.build().unwrap();
        assert_eq!(model.is_sentence_transformer(), !plain);
        for (place, case) in golden.cases.iter().enumerate().filter(|(_, case)| case.pair.is_none()) {
            let embeddings = model.encode(&[&case.text]).unwrap();
            assert_eq!(embeddings.tokens(), [case.embedding_tokens], "{} {:?}", golden.name(), case.text);
            let off = difference(embeddings.row(0), golden.get("embedding", place).unwrap());
            assert!(off <= allowed(EMBEDDING), "{} {:?}: off by {off}", golden.name(), case.text);
        }
    }
}
