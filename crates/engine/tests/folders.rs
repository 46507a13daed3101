//! Folders that say something unusual, or are damaged: honoured, or an error that names the file. Never a panic.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::Path;

use common::{copy, fixtures};
use mlx_transformers::{
    AutoModel, AutoTokenizer, Device, Error, MOST_THREADS, Pooling, Precision, SentenceTransformer,
};

fn name(folder: &Path) -> String {
    folder.display().to_string()
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn sentence_error(folder: &Path) -> Error {
    match SentenceTransformer::from_pretrained(name(folder)) {
        Err(error) => error,
        Ok(_) => panic!("{} loads", folder.display()),
    }
}

#[test]
fn a_missing_tokenizer_says_what_to_do() {
    let folder = copy("bert");
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = AutoTokenizer::from_pretrained(name(folder.path())).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { file: "tokenizer.json", .. }), "{error}");
    assert!(error.to_string().contains("save_pretrained"), "{error}");
}

#[test]
fn a_damaged_tokenizer_is_an_error_that_names_the_file() {
    let folder = copy("bert");
    let path = folder.path().join("tokenizer.json");
    let whole = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).step_by(97).map(|end| whole[..end].to_vec()).collect();
    damaged.push(b"{}".to_vec());
    damaged.push(b"[1, 2]".to_vec());
    damaged.push(vec![0xff; 100]);
    damaged.push("[".repeat(100_000).into_bytes());
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let error = AutoTokenizer::from_pretrained(name(folder.path())).unwrap_err();
        assert!(matches!(&error, Error::Tokenizer { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_hostile_tokenizer_is_an_error_and_never_a_panic() {
    let folder = copy("roberta");
    let path = folder.path().join("tokenizer.json");
    let whole: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let piece = serde_json::json!([{"SpecialToken": {"id": "[NONE]", "type_id": 0}}]);
    let template = serde_json::json!({"type": "TemplateProcessing", "single": piece, "pair": [], "special_tokens": {}});
    for (at, value, expected) in [
        ("/post_processor", template.clone(), "names the special token \"[NONE]\""),
        ("/post_processor", serde_json::json!({"type": "Sequence", "processors": [template]}), "\"[NONE]\""),
        ("/normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "tokenizer.json"),
        ("/model/continuing_subword_prefix", serde_json::json!("AAAA"), "tokenizer.json"),
        ("/model/vocab", serde_json::json!({}), "tokenizer.json"),
        ("/pre_tokenizer", serde_json::json!({"type": "Split", "pattern": {"Regex": "("}}), "tokenizer.json"),
    ] {
        let mut damaged = whole.clone();
        *damaged.pointer_mut(at).unwrap() = value;
        fs::write(&path, damaged.to_string()).unwrap();
        let error = AutoTokenizer::from_pretrained(name(folder.path())).unwrap_err();
        assert!(matches!(&error, Error::Tokenizer { .. }), "{at}: {error}");
        assert!(error.to_string().contains(expected), "{at}: {error}");
    }
}

#[test]
fn damaged_settings_are_errors_that_name_the_file() {
    for file in ["tokenizer_config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"] {
        for text in ["", "{", "7", "\u{0}", r#"{"max_seq_length": -1, "model_max_length": "x", "pooling_mode": 3}"#] {
            let folder = copy("sentence-mean");
            write(folder.path(), file, text);
            let error = sentence_error(folder.path());
            assert!(matches!(&error, Error::Json { .. }), "{file} {text:?}: {error}");
            assert!(error.to_string().contains(file.rsplit('/').next().unwrap()), "{error}");
        }
    }
}

#[test]
fn modules_that_are_not_supported_are_named() {
    let folder = copy("sentence-mean");
    let module = |path: &str, class: &str| format!(r#"{{"idx": 0, "name": "0", "path": "{path}", "type": "{class}"}}"#);
    let own = |path: &str, kind: &str| module(path, &format!("sentence_transformers.models.{kind}"));
    let transformer = own("", "Transformer");
    let pooling = own("1_Pooling", "Pooling");
    let two = [transformer.clone(), pooling.clone()];
    let after = |third: String| [two.as_slice(), &[third]].concat();
    for (modules, expected) in [
        (vec![transformer.clone(), own("2_Dense", "Dense")], "type is sentence_transformers.models.Dense"),
        (vec![own("", "CLIPModel")], "type is sentence_transformers.models.CLIPModel"),
        (vec![own("0_BoW", "BoW"), own("1_Dense", "Dense")], "models.BoW"),
        (vec![own("0_WordEmbeddings", "WordEmbeddings"), pooling.clone()], "models.WordEmbeddings"),
        (vec![own("", "StaticEmbedding"), own("1_Normalize", "Normalize")], "models.StaticEmbedding"),
        (vec![own("", "Router")], "models.Router"),
        (vec![own("", "Asym"), own("1_Normalize", "Normalize")], "models.Asym"),
        (vec![transformer.clone(), own("1_CNN", "CNN"), own("2_Pooling", "Pooling")], "models.CNN"),
        (vec![transformer.clone(), own("1_LSTM", "LSTM"), own("2_Pooling", "Pooling")], "models.LSTM"),
        (vec![transformer.clone(), own("1", "WeightedLayerPooling"), pooling.clone()], "models.WeightedLayerPooling"),
        (vec![transformer.clone(), own("1_WordWeights", "WordWeights"), pooling.clone()], "models.WordWeights"),
        (after(own("2_Pooling", "Pooling")), "models.Pooling"),
        (after(module("2_Normalize", "my.own.Normalize")), "type is my.own.Normalize"),
        (vec![module("", "custom_st.Transformer"), pooling.clone()], "type is custom_st.Transformer"),
        (vec![transformer.clone()], "without Pooling"),
        (vec![transformer.clone(), own("../x", "Pooling")], "path is ../x"),
        (vec![transformer.clone(), own("/etc", "Pooling")], "path is /etc"),
        (vec![own("0_Transformer", "Transformer"), pooling.clone()], "0_Transformer"),
        (vec![transformer.clone(), own("missing", "Pooling")], "missing has no config.json"),
        (vec![], "without Pooling"),
    ] {
        write(folder.path(), "modules.json", &format!("[{}]", modules.join(",")));
        let error = sentence_error(folder.path()).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn pooling_is_read_in_its_old_and_its_new_form() {
    let folder = copy("sentence-mean");
    let modes = |text: &str| {
        write(folder.path(), "1_Pooling/config.json", text);
        SentenceTransformer::from_pretrained(name(folder.path())).map(|model| model.poolings().to_vec())
    };
    assert_eq!(modes("{}").unwrap(), [Pooling::Mean]);
    assert_eq!(modes(r#"{"pooling_mode_lasttoken": true}"#).unwrap(), [Pooling::Last]);
    let several = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#;
    assert_eq!(modes(several).unwrap(), [Pooling::Cls, Pooling::Mean]);
    assert_eq!(modes(r#"{"pooling_mode": "weightedmean"}"#).unwrap(), [Pooling::WeightedMean]);
    let both = r#"{"pooling_mode": ["max", "mean_sqrt_len_tokens"], "pooling_mode_cls_token": true}"#;
    assert_eq!(modes(both).unwrap(), [Pooling::Max, Pooling::MeanSqrtLength]);
    let error = modes(r#"{"pooling_mode": "attention"}"#).unwrap_err().to_string();
    assert!(error.contains("pooling_mode is attention") && error.contains("weightedmean"), "{error}");
    assert!(modes(r#"{"pooling_mode": []}"#).is_err());
}

#[test]
fn several_poolings_stand_side_by_side() {
    let folder = copy("sentence-mean");
    let encode = |text: &str| {
        write(folder.path(), "1_Pooling/config.json", text);
        let model = SentenceTransformer::builder(name(folder.path())).normalize(false).build().unwrap();
        let embeddings = model.encode(&["a fox", "the"]).unwrap();
        assert_eq!(embeddings.dim(), model.dim());
        embeddings
    };
    let both = encode(r#"{"pooling_mode": ["max", "cls"]}"#);
    let (max, cls) = (encode(r#"{"pooling_mode": "max"}"#), encode(r#"{"pooling_mode": "cls"}"#));
    for i in 0..2 {
        assert_eq!(both.row(i), [max.row(i), cls.row(i)].concat());
    }
}

#[test]
fn options_go_before_the_folder() {
    let name = name(&fixtures().join("sentence-cls"));
    let model = SentenceTransformer::builder(&name).pooling(Pooling::Max).normalize(true).build().unwrap();
    assert_eq!((model.poolings(), model.normalizes()), ([Pooling::Max].as_slice(), true));
    let row = model.encode(&["a fox"]).unwrap().into_data();
    let length: f32 = row.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6, "{length}");
    assert!(!SentenceTransformer::from_pretrained(&name).unwrap().normalizes());
}

#[test]
fn a_default_prompt_is_put_before_every_text() {
    let folder = copy("sentence-mean");
    let plain = SentenceTransformer::from_pretrained(name(folder.path())).unwrap();
    let config = r#"{"prompts": {"query": "a fox "}, "default_prompt_name": "query"}"#;
    write(folder.path(), "config_sentence_transformers.json", config);
    let prompted = SentenceTransformer::from_pretrained(name(folder.path())).unwrap();
    assert_eq!(prompted.prompt(), "a fox ");
    assert_eq!(prompted.encode(&["the"]).unwrap().data(), plain.encode(&["a fox the"]).unwrap().data());

    let asked = |prompt: &str| SentenceTransformer::builder(name(folder.path())).prompt_name(prompt).build();
    // As in sentence-transformers, every model has this one; without a prompt of its own it is empty.
    assert_eq!(asked("document").unwrap().prompt(), "");
    let error = asked("quest").err().unwrap().to_string();
    assert_eq!(error, "this model has no prompt \"quest\": it has document, query");
    write(folder.path(), "config_sentence_transformers.json", r#"{"prompts": {"query": "a fox "}}"#);
    assert_eq!(SentenceTransformer::from_pretrained(name(folder.path())).unwrap().prompt(), "");
    let prompted = asked("query").unwrap();
    assert_eq!(prompted.encode(&["the"]).unwrap().data(), plain.encode(&["a fox the"]).unwrap().data());
    write(folder.path(), "config_sentence_transformers.json", config);

    write(folder.path(), "config_sentence_transformers.json", r#"{"default_prompt_name": "missing"}"#);
    assert!(sentence_error(folder.path()).to_string().contains("default_prompt_name is missing"));
    write(folder.path(), "config_sentence_transformers.json", r#"{"truncate_dim": 0}"#);
    assert!(sentence_error(folder.path()).to_string().contains("truncate_dim is 0"));
}

/// The layout of E5 and BGE-M3: XLM-RoBERTa, first token, unit length.
#[test]
fn a_multilingual_folder_is_pooled_as_it_says() {
    let folder = copy("xlm-roberta");
    let module = |i: usize, kind: &str, path: &str| {
        format!(r#"{{"idx": {i}, "name": "{i}", "path": "{path}", "type": "sentence_transformers.models.{kind}"}}"#)
    };
    let modules =
        [module(0, "Transformer", ""), module(1, "Pooling", "1_Pooling"), module(2, "Normalize", "2_Normalize")];
    write(folder.path(), "modules.json", &format!("[{}]", modules.join(",")));
    write(
        folder.path(),
        "1_Pooling/config.json",
        r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
    );
    let model = SentenceTransformer::from_pretrained(name(folder.path())).unwrap();
    let golden = common::golden(fixtures().join("xlm-roberta"));
    let embeddings = model.encode(&[&golden.cases[0].text]).unwrap();
    let first = &golden.get("hidden", 0).unwrap()[..model.dim()];
    let length = first.iter().map(|x| x * x).sum::<f32>().sqrt();
    let expected: Vec<f32> = first.iter().map(|x| x / length).collect();
    assert!(common::difference(embeddings.row(0), &expected) <= 1e-6);
}

#[test]
fn lowercasing_spares_special_tokens() {
    let folder = copy("bert-pretraining");
    write(
        folder.path(),
        "modules.json",
        r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1", "type": "sentence_transformers.models.Pooling"}]"#,
    );
    write(folder.path(), "1/config.json", "{}");
    let cased = SentenceTransformer::from_pretrained(name(folder.path())).unwrap();
    write(folder.path(), "sentence_bert_config.json", r#"{"do_lower_case": true}"#);
    let lower = SentenceTransformer::from_pretrained(name(folder.path())).unwrap();
    let text = ["The FOX [MASK]"];
    assert_ne!(cased.encode(&text).unwrap().data(), cased.encode(&["the fox [MASK]"]).unwrap().data());
    assert_eq!(lower.encode(&text).unwrap().data(), cased.encode(&["the fox [MASK]"]).unwrap().data());
}

/// Ids that `transformers` 5.23 gives for copies of two fixtures with these settings.
#[test]
fn settings_change_tokenizers_as_in_transformers() {
    let the_ete = "The été 敏捷 <newmask> fox [MASK]";
    let fox = "the fox <mask>x";
    let as_stored = vec![2, 259, 37, 181, 168, 149, 148, 1, 46, 168, 184, 175, 165, 180, 173, 1, 38, 177, 185, 4, 3];
    for (fixture, text, settings, ids) in [
        ("bert", the_ete, r#"{"tokenizer_class": "BertTokenizer"}"#, as_stored.clone()),
        ("bert", the_ete, "{}", as_stored.clone()),
        (
            "bert",
            the_ete,
            r#"{"tokenizer_class": "BertTokenizerFast", "do_lower_case": false}"#,
            vec![2, 1, 1, 149, 148, 1, 46, 168, 184, 175, 165, 180, 173, 1, 38, 177, 185, 4, 3],
        ),
        ("bert", the_ete, r#"{"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false}"#, as_stored),
        (
            "bert",
            the_ete,
            r#"{"tokenizer_class": "BertTokenizer", "strip_accents": false}"#,
            vec![2, 259, 1, 149, 148, 1, 46, 168, 184, 175, 165, 180, 173, 1, 38, 177, 185, 4, 3],
        ),
        (
            "bert",
            the_ete,
            r#"{"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": false}"#,
            vec![2, 259, 37, 181, 168, 1, 1, 46, 168, 184, 175, 165, 180, 173, 1, 38, 177, 185, 4, 3],
        ),
        (
            "bert",
            the_ete,
            r#"{"tokenizer_class": "BertTokenizer", "mask_token": "<newmask>"}"#,
            vec![2, 259, 37, 181, 168, 149, 148, 265, 38, 177, 185, 4, 3],
        ),
        (
            "bert",
            the_ete,
            r#"{"added_tokens_decoder": {"500": {"content": "fox", "lstrip": true, "special": false}}}"#,
            vec![2, 259, 37, 181, 168, 149, 148, 1, 46, 168, 184, 175, 165, 180, 173, 1, 265, 4, 3],
        ),
        (
            "bert",
            the_ete,
            r#"{"extra_special_tokens": ["été"]}"#,
            vec![2, 259, 265, 149, 148, 1, 46, 168, 184, 175, 165, 180, 173, 1, 38, 177, 185, 4, 3],
        ),
        ("roberta", fox, "{}", vec![0, 277, 224, 73, 82, 91, 224, 300, 91, 2]),
        ("roberta", fox, r#"{"add_prefix_space": true}"#, vec![0, 285, 224, 73, 82, 91, 224, 300, 224, 91, 2]),
        (
            "roberta",
            fox,
            r#"{"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": true}"#,
            vec![0, 277, 224, 73, 82, 91, 224, 300, 91, 2],
        ),
    ] {
        let folder = copy(fixture);
        write(folder.path(), "tokenizer_config.json", settings);
        let tokenizer = AutoTokenizer::from_pretrained(name(folder.path())).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap().ids, ids, "{fixture} with {settings}");
    }
}

#[test]
fn broken_weights_are_an_error_that_names_the_text() {
    let folder = copy("bert");
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let tokenizer = AutoTokenizer::from_pretrained(name(folder.path())).unwrap();
    let id = tokenizer.encode("the").unwrap().ids[1] as usize;
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let entries: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let table = &entries["embeddings.word_embeddings.weight"];
    let cols = usize::try_from(table["shape"][1].as_u64().unwrap()).unwrap();
    let first = usize::try_from(table["data_offsets"][0].as_u64().unwrap()).unwrap();
    let at = 8 + header + first + id * cols * 4;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    // Replaced by renaming: the old file may still be mapped.
    fs::write(folder.path().join("new"), bytes).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();

    let texts = ["a", "a fox", "the fox"];
    let error = SentenceTransformer::from_pretrained(name(folder.path())).unwrap().encode(&texts).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 2 }), "{error}");
    let error = AutoModel::from_pretrained(name(folder.path())).unwrap().features(&texts).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 2 }), "{error}");
}

#[test]
fn nothing_is_used_in_place_of_what_was_asked_for() {
    let builder = || AutoModel::builder(name(&fixtures().join("bert")));
    let refused = |device: Device, error: Error| {
        assert!(matches!(&error, Error::DeviceUnavailable { .. }), "{error}");
        assert!(error.to_string().contains(&device.to_string()), "{error}");
    };
    // Whichever of these this machine has.
    for device in [Device::MlxCpu, Device::MlxGpu, Device::Cuda(0)] {
        match builder().device(device).build() {
            Ok(model) => assert_eq!(model.info().device.device, device.to_string()),
            Err(error) => refused(device, error),
        }
    }
    refused(Device::Cuda(4000), builder().device(Device::Cuda(4000)).build().err().unwrap());
    let error = builder().device(Device::Reference).dtype(Precision::Q4).build().err().unwrap();
    assert!(error.to_string().contains("cannot run in q4"), "{error}");
    assert!(matches!(builder().threads(0).build().err().unwrap(), Error::ZeroOption { option: "threads" }));
    for asked in [MOST_THREADS + 1, usize::MAX] {
        let error = builder().threads(asked).build().err().unwrap();
        assert!(
            matches!(error, Error::TooManyThreads { asked: found, most: MOST_THREADS } if found == asked),
            "{error}"
        );
    }
    assert!(matches!(builder().batch_tokens(0).build().err().unwrap(), Error::ZeroOption { .. }));
    for asked in [0, 1, 100_000] {
        assert!(matches!(builder().max_length(asked).build().err().unwrap(), Error::MaxLength { .. }), "{asked}");
    }
}

#[test]
fn cutting_keeps_the_special_tokens() {
    let model = AutoModel::builder(name(&fixtures().join("bert"))).max_length(5).truncate(true).build().unwrap();
    let features = model.features(&["the quick brown fox", "a", ""]).unwrap();
    let whole = AutoModel::from_pretrained(name(&fixtures().join("bert"))).unwrap();
    let whole = whole.features(&["the quick brown fox"]).unwrap();
    assert_eq!(features[0].ids[..4], whole[0].ids[..4]);
    assert_eq!(features[0].tokens.last().unwrap(), "[SEP]");
    assert_eq!(features.iter().map(|f| f.ids.len()).collect::<Vec<_>>(), [5, 3, 2]);
}

#[test]
fn the_side_that_is_cut_and_the_limit_come_from_either_tokenizer_file() {
    let folder = copy("bert");
    let ids = |settings: &str| {
        write(folder.path(), "tokenizer_config.json", settings);
        let model = AutoModel::builder(name(folder.path())).truncate(true).build().unwrap();
        model.features(&["the quick brown fox"]).unwrap()[0].ids.clone()
    };
    let whole = ids("{}");
    let last = whole.len() - 1;
    let right = [&whole[..3], &whole[last..]].concat();
    let left = [&whole[..1], &whole[last - 2..]].concat();
    assert_eq!(ids(r#"{"model_max_length": 4}"#), right);
    assert_eq!(ids(r#"{"max_len": 4, "truncation_side": "left"}"#), left);
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["truncation"] =
        serde_json::json!({"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Left"});
    fs::write(path, tokenizer.to_string()).unwrap();
    assert_eq!(ids(r#"{"model_max_length": 4}"#), left);
    assert_eq!(ids(r#"{"model_max_length": 4, "truncation_side": "right"}"#), right);
}
