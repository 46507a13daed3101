//! Folders as they were before `tokenizer.json` and safetensors: the same tokens and numbers, and errors for damage.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::Path;

use common::server::{Fault, Server};
use common::{Golden, copy, fixtures, golden, goldens};
use mlx_transformers::{AutoModel, AutoTokenizer, Error, Hub, Origin};
use serde_json::Value;
use tempfile::TempDir;

const SENTENCEPIECE: &str = "sentencepiece.bpe.model";
/// Fixtures of classes whose vocabularies are read from `tokenizer.json` alone, or from a `spm.model` of another order.
const NEWER: [&str; 5] = ["deberta-v2", "deberta-v2-own", "deberta-v2-odd", "modernbert", "modernbert-biased"];

/// A copy of a fixture with its vocabulary as older files instead of `tokenizer.json`.
fn aged(golden: &Golden) -> TempDir {
    let folder = copy(golden.folder.file_name().unwrap().to_str().unwrap());
    let path = folder.path().join("tokenizer.json");
    let model = serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap()["model"].take();
    fs::remove_file(path).unwrap();
    match model["type"].as_str().unwrap() {
        "WordPiece" => fs::write(folder.path().join("vocab.txt"), lines(&model["vocab"])).unwrap(),
        "BPE" => {
            fs::write(folder.path().join("vocab.json"), model["vocab"].to_string()).unwrap();
            let pairs = model["merges"].as_array().unwrap().iter();
            let pairs = pairs.map(|pair| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
            fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}", pairs.collect::<String>()))
                .unwrap();
        }
        _ => fs::write(folder.path().join(SENTENCEPIECE), sentencepiece(model["vocab"].as_array().unwrap())).unwrap(),
    }
    folder
}

/// The model of SentencePiece with the normal pieces of a vocabulary, which begins with `<unk>`, `<s>`, `</s>`.
fn sentencepiece(vocabulary: &[Value]) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let piece = |text: &str, score: f32, kind: u8| {
        field(
            1,
            &[field(1, text.as_bytes()), vec![2 << 3 | 5], score.to_le_bytes().to_vec(), vec![3 << 3, kind]].concat(),
        )
    };
    let own = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)].concat();
    let normal = vocabulary.iter().map(|entry| (entry[0].as_str().unwrap(), entry[1].as_f64().unwrap() as f32));
    let normal = normal.filter(|(text, _)| !text.contains('<') || text.chars().count() == 1);
    [own, normal.flat_map(|(text, score)| piece(text, score, 1)).collect()].concat()
}

/// The tokens of a vocabulary in the order of their ids.
fn lines(vocabulary: &Value) -> String {
    let mut tokens: Vec<(u64, &str)> =
        vocabulary.as_object().unwrap().iter().map(|(token, id)| (id.as_u64().unwrap(), token.as_str())).collect();
    tokens.sort_unstable();
    tokens.into_iter().flat_map(|(_, token)| [token, "\n"]).collect()
}

fn tokenizer(folder: &Path) -> Result<AutoTokenizer, Error> {
    AutoTokenizer::from_pretrained(folder.display().to_string())
}

#[test]
fn tokens_are_those_of_transformers() {
    let mut kinds = Vec::new();
    for golden in goldens().into_iter().filter(|golden| !NEWER.iter().any(|name| golden.folder.ends_with(name))) {
        let folder = aged(&golden);
        // With the settings, and with none but those of the class.
        for with_settings in [true, false] {
            if !with_settings {
                fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
                if golden.name().ends_with("bert-pretraining") {
                    fs::write(folder.path().join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
                }
            }
            let tokenizer = tokenizer(folder.path()).unwrap();
            for case in &golden.cases {
                let encoding = match &case.pair {
                    Some(pair) => tokenizer.encode_pair(&case.text, pair).unwrap(),
                    None => tokenizer.encode(&case.text).unwrap(),
                };
                let what = format!("{} {:?}", golden.name(), case.text);
                assert_eq!((&encoding.ids, &encoding.tokens), (&case.ids, &case.tokens), "{what}");
                if with_settings {
                    // Without a class, DistilBERT is taken for BERT, as by `transformers`, and pairs have types.
                    assert_eq!(encoding.type_ids, case.type_ids, "{what}");
                }
            }
            assert!(tokenizer.mask_token().is_some());
            kinds.push(tokenizer.kind());
        }
    }
    assert!(kinds.contains(&"BPE") && kinds.contains(&"Unigram"));
    assert!(kinds.iter().filter(|kind| **kind == "WordPiece").count() >= 12, "{kinds:?}");
}

#[test]
fn added_tokens_and_settings_are_honoured() {
    // Printed by transformers 5.23 for these folders.
    let folder = aged(&golden(fixtures().join("bert")));
    let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
    write("tokenizer_config.json", r#"{"tokenizer_class": "BertTokenizer"}"#);
    write("special_tokens_map.json", r#"{"additional_special_tokens": ["<E1>"]}"#);
    write("added_tokens.json", r#"{"zorp": 266, "<E1>": 265}"#);
    let ids = tokenizer(folder.path()).unwrap().encode("the ZORP <E1>fox").unwrap().ids;
    assert_eq!(ids, [2, 259, 266, 265, 38, 177, 185, 3]);

    fs::remove_file(folder.path().join("added_tokens.json")).unwrap();
    for (config, map, want) in [
        ("{}", r#"{"additional_special_tokens": ["<E1>", "<E2>"]}"#, &[2, 259, 265, 38, 177, 185, 266, 3][..]),
        (
            r#"{"extra_special_tokens": ["<E2>"]}"#,
            r#"{"additional_special_tokens": ["<E1>"]}"#,
            &[2, 259, 1, 1, 1, 38, 177, 185, 265, 3],
        ),
        (
            r#"{"extra_special_tokens": ["<E2>"]}"#,
            r#"{"extra_special_tokens": ["<E1>"]}"#,
            &[2, 259, 266, 38, 177, 185, 265, 3],
        ),
    ] {
        write("tokenizer_config.json", config);
        write("special_tokens_map.json", map);
        let ids = tokenizer(folder.path()).unwrap().encode("the <E1>fox <E2>").unwrap().ids;
        assert_eq!(ids, want, "{config} {map}");
    }

    let folder = aged(&golden(fixtures().join("roberta")));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"add_prefix_space": true}"#).unwrap();
    let spaced = tokenizer(folder.path()).unwrap().encode("the fox").unwrap().ids;
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    let tokenizer = tokenizer(folder.path()).unwrap();
    assert_eq!(spaced, tokenizer.encode(" the fox").unwrap().ids);
    assert_ne!(spaced, tokenizer.encode("the fox").unwrap().ids);
}

#[test]
fn damaged_vocabularies_are_errors_that_name_the_file() {
    let bert = |bytes: &[u8]| {
        let folder = aged(&golden(fixtures().join("bert")));
        fs::write(folder.path().join("vocab.txt"), bytes).unwrap();
        tokenizer(folder.path()).unwrap_err()
    };
    for (bytes, part) in [
        (&b""[..], "lacks the special token \"[CLS]\""),
        (b"[CLS]\n[UNK]\n", "lacks the special token \"[SEP]\""),
        (b"[CLS]\n[UNK]\n[SEP]\n\xff\n", "utf-8"),
    ] {
        let error = bert(bytes);
        assert!(matches!(&error, Error::Tokenizer { path, .. } if path.ends_with("vocab.txt")), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let roberta = |file: &str, bytes: &[u8]| {
        let folder = aged(&golden(fixtures().join("roberta")));
        fs::write(folder.path().join(file), bytes).unwrap();
        tokenizer(folder.path()).unwrap_err()
    };
    assert!(matches!(roberta("vocab.json", b"{"), Error::Json { .. }));
    assert!(matches!(roberta("vocab.json", br#"{"<s>": -1}"#), Error::Json { .. }));
    assert!(matches!(roberta("vocab.json", b"{}"), Error::Tokenizer { .. }));
    for merges in ["a b c\n", "a\n", "nowhere tobefound\n"] {
        let error = roberta("merges.txt", merges.as_bytes());
        assert!(matches!(&error, Error::Tokenizer { .. }), "{merges:?}: {error}");
    }
}

#[test]
fn deberta_normalises_in_its_own_way() {
    // Printed by transformers 5.23 for this folder; the file's own normaliser is not asked.
    let folder = tempfile::tempdir().unwrap();
    let pieces: Vec<Value> =
        ["▁", "a", "b", "é", "!", "▁a", "A"].iter().map(|text| serde_json::json!([text, -1.0])).collect();
    let model = [sentencepiece(&pieces), b"\x12\x03\xc0\x02\x00".to_vec()].concat();
    fs::write(folder.path().join("spm.model"), model).unwrap();
    let ids = |settings: &str, text: &str| {
        fs::write(folder.path().join("tokenizer_config.json"), settings).unwrap();
        tokenizer(folder.path()).unwrap().encode(text).unwrap().ids
    };
    let plain =
        r#"{"tokenizer_class": "DebertaV2Tokenizer", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}"#;
    assert_eq!(ids(plain, "A\n  be\u{301}! "), [1, 3, 9, 3, 5, 6, 7, 2]);
    let split = plain.replace('{', r#"{"do_lower_case": true, "split_by_punct": true, "#);
    assert_eq!(ids(&split, "A\n  be\u{301}! "), [1, 8, 3, 5, 6, 3, 7, 2]);
    // The model's type stands in for the class.
    fs::write(folder.path().join("config.json"), r#"{"model_type": "deberta-v2"}"#).unwrap();
    let unnamed = plain.replace(r#""tokenizer_class": "DebertaV2Tokenizer", "#, "");
    assert_eq!(ids(&unnamed, "A\n  be\u{301}! "), [1, 3, 9, 3, 5, 6, 7, 2]);
}

#[test]
fn a_damaged_sentencepiece_model_is_an_error_that_names_the_file() {
    let folder = aged(&golden(fixtures().join("xlm-roberta")));
    let path = folder.path().join(SENTENCEPIECE);
    let whole = fs::read(&path).unwrap();
    let bpe = [&whole[..], b"\x12\x02\x18\x02"].concat();
    for (bytes, part) in [(&whole[..whole.len() - 1], "cut short"), (&bpe, "model type is 2"), (b"", "0 pieces")] {
        fs::write(&path, bytes).unwrap();
        let error = tokenizer(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::SentencePiece { path: named, .. } if *named == path), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // A normaliser whose trie is said to have four billion bytes, and one that is not its own length.
    for map in [&b"\xff\xff\xff\xff"[..], b"\x04\x00\x00\x00\x00"] {
        let normalizer = [&[0x12, map.len() as u8], map].concat();
        let normalizer = [&[0x1a, normalizer.len() as u8], &normalizer[..]].concat();
        fs::write(&path, [&whole[..], &normalizer].concat()).unwrap();
        let error = tokenizer(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::Tokenizer { .. }) && error.to_string().contains("cut short"), "{error}");
    }
}

#[test]
fn without_all_its_files_a_vocabulary_is_missing() {
    let folder = aged(&golden(fixtures().join("roberta")));
    fs::remove_file(folder.path().join("merges.txt")).unwrap();
    let error = tokenizer(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { file: "tokenizer.json", .. }), "{error}");
    assert!(error.to_string().contains("vocab.json with merges.txt"), "{error}");
}

#[test]
fn an_old_model_comes_from_the_hub_with_all_it_needs() {
    let old = aged(&golden(fixtures().join("electra-square")));
    fs::remove_file(old.path().join("model.safetensors")).unwrap();
    for entry in fs::read_dir(fixtures().join("electra-bin")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "pytorch_model.bin" {
            fs::copy(entry.path(), old.path().join(entry.file_name())).unwrap();
        }
    }
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(old.path(), Fault::None);
    let hub = Hub {
        cache: cache.path().join("hub"),
        data: cache.path().join("data"),
        endpoint: Some(server.endpoint.clone()),
        ..Hub::default()
    };
    let model = AutoModel::builder("org/model").hub(hub.clone()).build().unwrap();
    let local = AutoModel::from_pretrained(fixtures().join("electra-square").display().to_string()).unwrap();
    assert_eq!(model.features(&["The fox"]).unwrap()[0].hidden, local.features(&["The fox"]).unwrap()[0].hidden);
    assert_eq!(hub.find("org/model", None).unwrap().origin(), Origin::Cache);
    assert!(!server.requests.lock().unwrap().iter().any(|request| request.contains("vocab.json")));
}
