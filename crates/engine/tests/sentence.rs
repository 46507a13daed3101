//! Folders of sentence-transformers with less usual modules and settings: the embeddings that library gives for them, on
//! the CPU or the device that `MLXT_TEST_DEVICE` names, and errors for what is not supported.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{allowed, copy, device, difference, fixtures, tensors};
use mlx_transformers::{AutoModel, AutoTokenizer, Builder, Description, Error, Pooling, SentenceTransformer, Step};
use serde::Deserialize;

const EMBEDDING: f32 = 1e-6;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt_name: Option<String>,
    text: String,
    tokens: usize,
}

fn golden(folder: &Path) -> Vec<(Case, Vec<f32>)> {
    let golden: Golden = serde_json::from_slice(&fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let mut values = tensors(folder);
    let cases = golden.cases.into_iter().enumerate();
    cases.map(|(i, case)| (case, values.remove(&format!("embedding.{i}")).unwrap())).collect()
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(fixtures().join("sentence")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 3, "{folders:?}");
    folders
}

fn name(folder: &Path) -> String {
    folder.display().to_string()
}

fn open(folder: &Path, prompt: Option<&str>) -> SentenceTransformer {
    let builder = SentenceTransformer::builder(name(folder)).device(device()).truncate(true);
    let builder = prompt.into_iter().fold(builder, Builder::prompt_name);
    builder.build().unwrap()
}

fn error(folder: &Path) -> String {
    SentenceTransformer::from_pretrained(name(folder)).err().unwrap().to_string()
}

/// Replaces a setting of a file, or adds it.
fn set(folder: &Path, file: &str, setting: &str, value: serde_json::Value) {
    let path = folder.join(file);
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings[setting] = value;
    fs::write(path, settings.to_string()).unwrap();
}

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    for folder in folders() {
        let cases = golden(&folder);
        let mut prompts: Vec<Option<&str>> = cases.iter().map(|(case, _)| case.prompt_name.as_deref()).collect();
        prompts.dedup();
        for prompt in prompts {
            let model = open(&folder, prompt);
            let cases: Vec<_> = cases.iter().filter(|(case, _)| case.prompt_name.as_deref() == prompt).collect();
            let texts: Vec<&str> = cases.iter().map(|(case, _)| case.text.as_str()).collect();
            let embeddings = model.encode(&texts).unwrap();
            assert_eq!(embeddings.dim(), model.dim());
            for (i, (case, expected)) in cases.into_iter().enumerate() {
                let what = format!("{} {prompt:?} {:?}", folder.display(), case.text);
                assert_eq!(embeddings.tokens()[i], case.tokens, "{what}");
                let off = difference(embeddings.row(i), expected);
                assert!(off <= allowed(EMBEDDING), "{what}: off by {off}");
            }
        }
    }
}

#[test]
fn everything_finds_a_transformer_in_a_folder_of_its_own() {
    let folder = copy("sentence/own-folder");
    // As very old versions wrote it beside `modules.json`.
    fs::write(folder.path().join("config.json"), r#"{"__version__": "1.0.0"}"#).unwrap();
    let (whole, inner) = (name(folder.path()), name(&folder.path().join("0_Transformer")));
    let model = |name: &str| AutoModel::builder(name).device(device()).build().unwrap();
    let (ours, expected) = (model(&whole), model(&inner));
    assert_eq!(ours.features(&["a fox"]).unwrap(), expected.features(&["a fox"]).unwrap());
    let tokens = |name: &str| AutoTokenizer::from_pretrained(name).unwrap().encode("a fox").unwrap();
    assert_eq!(tokens(&whole), tokens(&inner));
    let description = Description::of(&whole).unwrap();
    assert_eq!(description.folder.transformer(), folder.path().join("0_Transformer"));
    assert!(description.model.misfit.is_empty() && description.tokenizer.is_ok());
    assert_eq!(description.sentence.unwrap().steps, [Step::Normalize, Step::Truncate(5)]);
    assert_eq!(description.max_length, Some(20));

    let path = folder.path().join("0_Transformer/sentence_bert_config.json");
    fs::write(&path, r#"{"max_seq_length": 7, "do_lower_case": false}"#).unwrap();
    assert_eq!(open(folder.path(), None).max_length(), 7);
    // A name that the file had once.
    fs::rename(&path, path.with_file_name("sentence_xlm-roberta_config.json")).unwrap();
    assert_eq!(open(folder.path(), None).max_length(), 7);
    // Of another copy: there are systems on which weights that are in use cannot be removed.
    let folder = copy("sentence/own-folder");
    fs::remove_file(folder.path().join("0_Transformer/model.safetensors")).unwrap();
    assert!(error(folder.path()).contains("0_Transformer"), "{}", error(folder.path()));
}

#[test]
fn a_cut_comes_last_and_normalising_may_follow_it() {
    let folder = fixtures().join("sentence/own-folder");
    let built = |normalize: bool| {
        let builder = SentenceTransformer::builder(name(&folder)).device(device()).normalize(normalize);
        builder.build().unwrap()
    };
    let row = |model: &SentenceTransformer| model.encode(&["a fox"]).unwrap().into_data();
    let as_it_says = open(&folder, None);
    assert!(!as_it_says.normalizes(), "what is left of a row of unit length is shorter");
    let (raw, unit) = (built(false), built(true));
    assert_eq!((raw.steps(), raw.dim()), ([Step::Truncate(5)].as_slice(), 5));
    assert_eq!(unit.steps(), [Step::Truncate(5), Step::Normalize]);
    let scaled = |row: &[f32]| {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    assert!(difference(&row(&unit), &scaled(&row(&raw))) <= 1e-6);
    assert!(difference(&row(&unit), &scaled(&row(&as_it_says))) <= 1e-6);

    let folder = copy("sentence/own-folder");
    set(folder.path(), "config_sentence_transformers.json", "truncate_dim", 99.into());
    assert_eq!(open(folder.path(), None).dim(), 8, "there are no more columns than the model has");
}

#[test]
fn a_prompt_counts_unless_the_folder_says_otherwise() {
    let folder = copy("sentence/prompted");
    let config = "config_sentence_transformers.json";
    let prompts = serde_json::json!({"word": "the ", "part": "aga", "none": ""});
    set(folder.path(), config, "prompts", prompts);
    set(folder.path(), config, "default_prompt_name", "word".into());
    set(folder.path(), "1_Pooling/config.json", "pooling_mode", "cls".into());
    let first = |prompt: Option<&str>| open(folder.path(), prompt).encode(&["a fox"]).unwrap().into_data();
    let rows = AutoModel::builder(name(folder.path())).device(device()).build().unwrap();
    let rows = rows.features(&["the a fox"]).unwrap().remove(0);
    assert_eq!(first(None), rows.row(2), "the first of the rows that are pooled");
    assert_eq!(open(folder.path(), Some("none")).encode(&["the a fox"]).unwrap().data(), rows.row(0));
    set(folder.path(), "1_Pooling/config.json", "include_prompt", true.into());
    assert_eq!(first(None), rows.row(0));

    // Alone the prompt is `a ##g ##a`, with the text `again`: fewer tokens than are left out.
    set(folder.path(), "1_Pooling/config.json", "include_prompt", false.into());
    let error = open(folder.path(), Some("part")).encode(&["x", "in"]).unwrap_err();
    assert!(matches!(&error, Error::OnlyPrompt { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("beside those of the prompt \"aga\""), "{error}");
}

#[test]
fn a_pooling_that_is_asked_for_leaves_the_prompt_out_too() {
    let folder = fixtures().join("sentence/prompted");
    let every = open(&folder, None);
    let places: Vec<usize> = (0..every.poolings().len()).collect();
    let whole = every.encode(&["a fox", ""]).unwrap();
    let hidden = every.dim() / places.len();
    for place in places {
        let pooling: Pooling = every.poolings()[place];
        let one = SentenceTransformer::builder(name(&folder)).device(device()).pooling(pooling).build().unwrap();
        let one = one.encode(&["a fox", ""]).unwrap();
        for text in 0..2 {
            assert_eq!(one.row(text), &whole.row(text)[place * hidden..][..hidden], "{pooling:?}");
        }
    }
}

#[test]
fn a_transformer_that_is_used_in_another_way_is_refused() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let message = r#"{"text": {"method": "forward", "method_output_name": "last_hidden_state"},
                      "message": {"method": "forward", "method_output_name": "last_hidden_state"}}"#;
    let pooler = r#"{"text": {"method": "forward", "method_output_name": "pooler_output"}}"#;
    for (setting, value, expected) in [
        ("transformer_task", r#""fill-mask""#, "transformer_task is fill-mask; supported: feature-extraction"),
        ("module_output_name", r#""sentence_embedding""#, "module_output_name is sentence_embedding"),
        ("modality_config", message, "modality_config is {"),
        ("modality_config", pooler, "modality_config is {"),
        ("modality_config", "{}", "modality_config is {}"),
        ("tokenizer_name_or_path", r#""other/model""#, "tokenizer_name_or_path is other/model"),
        ("processing_kwargs", r#"{"text": {"max_length": 9}}"#, "processing_kwargs is text: {\"max_length\":9}"),
        ("model_args", r#"{"subfolder": "x"}"#, "model_kwargs is subfolder: \"x\""),
        ("processor_kwargs", r#"{"padding_side": "left"}"#, "processor_kwargs is padding_side: \"left\""),
        ("config_args", r#"{"hidden_act": "relu"}"#, "config_kwargs is hidden_act: \"relu\""),
    ] {
        let folder = copy("sentence/dense");
        set(folder.path(), "sentence_bert_config.json", setting, json(value));
        let error = error(folder.path());
        assert!(error.contains(expected) && error.contains("sentence_bert_config.json"), "{error}");
    }
    let folder = copy("sentence/dense");
    let harmless = r#"{"trust_remote_code": true, "torch_dtype": "float16", "attn_implementation": "sdpa"}"#;
    set(folder.path(), "sentence_bert_config.json", "model_args", json(harmless));
    assert!(SentenceTransformer::from_pretrained(name(folder.path())).is_ok());
}

#[test]
fn an_adapter_is_never_ignored() {
    for (fixture, place) in [("sentence/own-folder", "0_Transformer"), ("sentence/dense", ""), ("bert", "")] {
        let folder = copy(fixture);
        let path = folder.path().join(place).join("adapter_config.json");
        fs::write(&path, r#"{"peft_type": "LORA", "r": 8}"#).unwrap();
        let said = error(folder.path());
        assert!(said.contains(&name(&path)) && said.contains("the adapter is LORA"), "{said}");
        let said = AutoModel::from_pretrained(name(folder.path())).err().unwrap().to_string();
        assert!(said.contains("the adapter is LORA"), "{said}");
        assert!(Description::of(name(folder.path())).unwrap().sentence.is_err());
    }
}

#[test]
fn modules_that_do_not_fit_together_are_named() {
    let folder = copy("sentence/dense");
    set(folder.path(), "3_LayerNorm/config.json", "dimension", 11.into());
    let said = error(folder.path());
    assert!(said.contains("3_LayerNorm") && said.contains("dimension is 11"), "{said}");
    let folder = copy("sentence/dense");
    fs::copy(folder.path().join("2_Dense/model.safetensors"), folder.path().join("3_LayerNorm/model.safetensors"))
        .unwrap();
    let said = error(folder.path());
    assert!(
        said.contains("are not the LayerNorm") && said.contains("missing (norm.bias [12], norm.weight [12])"),
        "{said}"
    );
    fs::remove_file(folder.path().join("3_LayerNorm/config.json")).unwrap();
    assert!(error(folder.path()).contains("3_LayerNorm has no config.json"));
    set(folder.path(), "2_Dense/config.json", "activation_function", "torch.nn.modules.activation.GLU".into());
    let said = error(folder.path());
    assert!(said.contains("activation.GLU; supported: torch.nn's Identity, Tanh"), "{said}");
}
