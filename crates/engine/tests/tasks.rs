//! Tasks on every family: what Hugging Face pipelines answer, answers that do not depend on the batch, refusals.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::path::{Path, PathBuf};

use mlx_transformers::{
    Aggregation, Builder, Entity, Error, FillMask, Load, QuestionAnswerer, Reranker, Scored, Task, TextClassifier,
    TokenClassifier, ZeroShotClassifier, inspect,
};
use proptest::prelude::*;
use serde_json::Value;

/// Every family.
const FAMILIES: [&str; 10] = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "deberta-v2",
    "modernbert",
    "nomic-bert",
];
/// Those with all heads in one checkpoint: the first 8 of [`FAMILIES`].
const WHOLE: usize = 8;
/// Checkpoints that answer questions: those with all heads, and one of its own.
const ANSWERING: [&str; 9] = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "deberta-v2",
    "modernbert-answer",
];
/// Of scores, which are probabilities or of their size.
const TOLERANCE: f32 = 1e-5;

fn folder(name: &str) -> PathBuf {
    common::fixtures().join("tasks").join(name)
}

fn path(folder: &Path) -> String {
    folder.display().to_string()
}

fn build<T: Load>(builder: Builder<T>) -> T {
    builder.device(common::device()).threads(2).build().unwrap()
}

/// What the pipelines answer for a task.
fn golden(name: &str, task: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("golden.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[task].take()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    serde_json::from_value(value.clone()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[track_caller]
fn close(what: &str, found: f32, want: &Value) {
    let off = (f64::from(found) - want.as_f64().unwrap()).abs();
    assert!(off <= f64::from(common::allowed(TOLERANCE)), "{what}: {found} instead of {want}");
}

#[track_caller]
fn same_labels(what: &str, found: &[Scored], want: &Value) {
    let want = list(want);
    assert_eq!(found.len(), want.len(), "{what}");
    for (found, want) in found.iter().zip(want) {
        assert_eq!(found.label, want["label"], "{what}");
        close(what, found.score, &want["score"]);
    }
}

/// A copy of a fixture with other settings.
fn with_settings(name: &str, settings: &[(&str, Value)]) -> tempfile::TempDir {
    let copy = common::copy(&format!("tasks/{name}"));
    let file = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for (setting, value) in settings {
        config[*setting] = value.clone();
    }
    std::fs::write(file, config.to_string()).unwrap();
    copy
}

#[test]
fn masks_are_filled_as_the_pipeline_does() {
    for name in FAMILIES {
        let golden = golden(name, "fill-mask");
        let model = build(FillMask::builder(path(&folder(name))));
        let texts = texts(&golden["texts"]);
        let filled = model.fill(&texts, 3).unwrap();
        for ((text, filled), want) in texts.iter().zip(&filled).zip(list(&golden["answers"])) {
            let what = format!("{name} {text:?}");
            assert_eq!(filled.len(), list(want).len(), "{what}");
            for (guesses, want) in filled.iter().zip(list(want)) {
                assert_eq!(guesses.len(), 3);
                for (guess, want) in guesses.iter().zip(list(want)) {
                    assert_eq!(guess.token_id, want["token_id"], "{what}");
                    assert_eq!(guess.token, want["token"], "{what}");
                    assert_eq!(guess.sequence, want["sequence"], "{what}");
                    close(&what, guess.score, &want["score"]);
                }
            }
        }
    }
}

#[test]
fn texts_and_pairs_are_classified_as_the_pipeline_does() {
    for name in FAMILIES {
        let golden = golden(name, "classify");
        for case in list(&golden["cases"]) {
            let copy = with_settings(name, &[("problem_type", case["problem"].clone())]);
            let model = build(TextClassifier::builder(path(copy.path())));
            let what = format!("{name} {}", case["problem"]);
            let found = model.classify(&texts(&golden["texts"])).unwrap();
            for (found, want) in found.iter().zip(list(&case["texts"])) {
                same_labels(&what, found, want);
            }
            let found = model.classify_pairs(&pairs(&golden["pairs"])).unwrap();
            for (found, want) in found.iter().zip(list(&case["pairs"])) {
                same_labels(&what, found, want);
            }
        }
    }
}

#[test]
fn labels_never_seen_are_scored_as_the_pipeline_does() {
    let golden = golden("bert-nli", "zero-shot");
    for case in list(&golden["cases"]) {
        let builder = ZeroShotClassifier::builder(path(&folder("bert-nli"))).multi_label(case["multi"] == true);
        let model = build(builder.template(case["template"].as_str().unwrap()));
        let found = model.classify(&texts(&golden["texts"]), &texts(&case["labels"])).unwrap();
        for (found, want) in found.iter().zip(list(&case["answers"])) {
            same_labels("zero-shot", found, want);
        }
    }
}

#[test]
fn documents_are_ranked_as_sentence_transformers_does() {
    let golden = golden("bert-reranker", "rerank");
    let documents = texts(&golden["texts"]);
    let plain = with_settings("bert-reranker", &[("sentence_transformers", Value::Null)]);
    for (folder, key) in [(folder("bert-reranker"), "identity"), (plain.path().to_owned(), "sigmoid")] {
        let model = build(Reranker::builder(path(&folder)));
        let ranked = model.rank(golden["query"].as_str().unwrap(), &documents).unwrap();
        let want = list(&golden[key]);
        assert_eq!(ranked.len(), want.len());
        for (ranked, want) in ranked.iter().zip(want) {
            assert_eq!(ranked.index as u64, want["index"], "{key}");
            close(key, ranked.score, &want["score"]);
        }
    }
}

#[test]
fn files_of_sentence_transformers_count_where_it_saved_the_folder() {
    // Printed by CrossEncoder of sentence-transformers 5.7.
    let documents = ["The quick brown fox jumps over the lazy dog and again", "a"];
    let copy = with_settings("bert-reranker", &[("sentence_transformers", Value::Null)]);
    let write = |file: &str, text: &str| std::fs::write(copy.path().join(file), text).unwrap();
    let ranked = || {
        let model = build(Reranker::builder(path(copy.path())).truncate(true));
        model.rank("Was kostet das?", &documents).unwrap().into_iter().map(|r| (r.index, r.score)).collect::<Vec<_>>()
    };
    let like = |found: &[(usize, f32)], want: [(usize, f32); 2]| {
        assert!(found.iter().zip(want).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 2e-6), "{found:?}");
    };
    write("sentence_bert_config.json", r#"{"max_seq_length": 10}"#);
    write("config_sentence_transformers.json", r#"{"activation_fn": "torch.nn.modules.linear.Identity"}"#);
    like(&ranked(), [(1, 0.491_031), (0, 0.484_243)]);
    write(
        "modules.json",
        r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]"#,
    );
    like(&ranked(), [(1, 0.491_031), (0, 0.484_243)]);
    let own = |settings: &str| {
        let text = format!(r#"{{"activation_fn": "torch.nn.modules.linear.Identity", {settings}}}"#);
        write("config_sentence_transformers.json", &text);
    };
    own(r#""model_type": "SentenceTransformer""#);
    like(&ranked(), [(1, 0.491_031), (0, 0.484_243)]);
    own(r#""model_type": "CrossEncoder""#);
    like(&ranked(), [(1, -0.036_157), (0, -0.051_075)]);

    let refused = || Reranker::from_pretrained(path(copy.path())).err().unwrap().to_string();
    write("sentence_bert_config.json", r#"{"transformer_task": "text-generation"}"#);
    assert!(refused().contains("transformer_task is text-generation; supported: sequence-classification"));
    own(r#""model_type": "CrossEncoder", "default_prompt_name": "query""#);
    assert!(refused().contains("default_prompt_name is query"));
    own(r#""model_type": "CrossEncoder""#);
    write("modules.json", r#"[{"type": "a.Transformer"}, {"type": "a.Dense"}]"#);
    assert!(refused().contains("the list of modules is a.Transformer, a.Dense"));
}

#[test]
fn decoders_that_are_not_tied_may_be_so_by_their_class() {
    // Printed by the pipeline of transformers 5.23.
    let model = build(FillMask::builder(path(&common::fixtures().join("deberta-v2-odd"))));
    let filled = model.fill(&["The quick [MASK] fox"], 3).unwrap();
    let found: Vec<_> = filled[0][0].iter().map(|f| (f.token_id, f.token.as_str(), f.score)).collect();
    for (found, want) in found.iter().zip([(67, "и", 0.121_053), (57, "p", 0.084_329), (48, "'", 0.067_791)]) {
        assert!((found.0, found.1) == (want.0, want.1) && (found.2 - want.2).abs() < 2e-6, "{found:?}");
    }
}

#[test]
fn tokens_are_labelled_and_joined_as_the_pipeline_does() {
    for name in FAMILIES {
        let golden = golden(name, "ner");
        let model = build(TokenClassifier::builder(path(&folder(name))));
        let texts = texts(&golden["texts"]);
        for (aggregation, key) in Aggregation::ALL {
            let found = model.tag(&texts, aggregation).unwrap();
            for ((text, found), want) in texts.iter().zip(&found).zip(list(&golden["answers"][key])) {
                let what = format!("{name} {key} {text:?}");
                let part = |entity: &Entity| (entity.start, entity.end, entity.label.clone(), entity.word.clone());
                let number = |value: &Value| value.as_u64().unwrap() as usize;
                let string = |value: &Value| value.as_str().unwrap().to_owned();
                let wanted: Vec<_> = list(want)
                    .iter()
                    .map(|w| (number(&w["start"]), number(&w["end"]), string(&w["label"]), string(&w["word"])))
                    .collect();
                assert_eq!(found.iter().map(part).collect::<Vec<_>>(), wanted, "{what}");
                for (found, want) in found.iter().zip(list(want)) {
                    assert_eq!(found.index.map(|i| i as u64), want["index"].as_u64(), "{what}");
                    close(&what, found.score, &want["score"]);
                }
            }
        }
    }
}

#[test]
fn questions_are_answered_as_the_pipeline_did() {
    for name in ANSWERING {
        let golden = golden(name, "answer");
        let questions = pairs(&golden["questions"]);
        for case in list(&golden["cases"]) {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let builder = QuestionAnswerer::builder(path(&folder(name)))
                .max_length(number("max_length"))
                .stride(number("stride"))
                .handle_impossible_answer(case["impossible"] == true);
            let found = build(builder).answer(&questions, number("top_k")).unwrap();
            for ((question, found), want) in questions.iter().zip(&found).zip(list(&case["answers"])) {
                let what = format!("{name} {question:?} {}", case["max_length"]);
                assert_eq!(found.len(), list(want).len(), "{what}: {found:?} {want}");
                for (found, want) in found.iter().zip(list(want)) {
                    assert_eq!(found.answer, want["answer"], "{what}");
                    assert_eq!(
                        (found.start as u64, found.end as u64),
                        (want["start"].as_u64().unwrap(), want["end"].as_u64().unwrap()),
                        "{what}"
                    );
                    close(&what, found.score, &want["score"]);
                }
            }
        }
    }
}

#[test]
fn what_files_leave_out_of_question_answering() {
    let model = build(QuestionAnswerer::builder(path(&folder("bert"))));
    assert_eq!((model.max_length(), model.stride()), (60, 30));
}

#[test]
fn contexts_are_cut_from_the_side_that_the_tokenizer_names() {
    let copy = common::copy("tasks/bert");
    let settings = copy.path().join("tokenizer_config.json");
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    changed["truncation_side"] = "left".into();
    std::fs::write(&settings, changed.to_string()).unwrap();
    let model = build(QuestionAnswerer::builder(path(copy.path())).max_length(36).stride(5));
    let questions = [
        ("the dog", "A dog, a Dog; the DOG 🙂 sleeps on the warm windowsill, again and again and again, a dog."),
        ("où", "Zwölf Straßen weiter fließt der Fluss. L'été dernier, où étiez-vous donc ? Ça va."),
    ];
    // What `best_answers` of fixtures/make_tasks.py gives with transformers 5.23 for the tokenizer of this folder.
    let expected = [("warm windowsill, again and", 0.014_152_84, 38, 64), ("Zwölf", 0.077_313_66, 0, 5)];
    for (found, (answer, score, start, end)) in model.answer(&questions, 3).unwrap().iter().zip(expected) {
        assert_eq!((found[0].answer.as_str(), found[0].start, found[0].end), (answer, start, end));
        assert!((f64::from(found[0].score) - score).abs() <= f64::from(common::allowed(TOLERANCE)), "{found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_batch_is_its_texts_alone(
        texts in prop::collection::vec("[a-zа-я敏捷 .,]{0,30}|\\PC{0,12}", 1..12),
        budget in 1_usize..200,
        family in 0..WHOLE,
    ) {
        let name = path(&folder(FAMILIES[family]));
        let cut = |budget| (
            FillMask::builder(&name).batch_tokens(budget).truncate(true).build().unwrap(),
            TextClassifier::builder(&name).batch_tokens(budget).truncate(true).build().unwrap(),
            TokenClassifier::builder(&name).batch_tokens(budget).truncate(true).build().unwrap(),
            QuestionAnswerer::builder(&name).batch_tokens(budget).stride(9).build().unwrap(),
        );
        let (fill, classify, tag, answer) = cut(budget);
        let masked: Vec<String> = texts.iter().map(|text| format!("{} {text}", fill.mask_token())).collect();
        let questions: Vec<(&str, String)> = texts.iter().map(|text| ("a?", format!("the {text}"))).collect();
        let filled = fill.fill(&masked, 2).unwrap();
        let classified = classify.classify(&texts).unwrap();
        let tagged = tag.tag(&texts, Aggregation::First).unwrap();
        let answered = answer.answer(&questions, 2).unwrap();
        let (fill, classify, tag, answer) = cut(4000);
        for i in 0..texts.len() {
            prop_assert_eq!(&fill.fill(&masked[i..=i], 2).unwrap()[0], &filled[i]);
            prop_assert_eq!(&classify.classify(&texts[i..=i]).unwrap()[0], &classified[i]);
            prop_assert_eq!(&tag.tag(&texts[i..=i], Aggregation::First).unwrap()[0], &tagged[i]);
            prop_assert_eq!(&answer.answer(&questions[i..=i], 2).unwrap()[0], &answered[i]);
        }
    }
}

#[test]
fn a_checkpoint_says_what_it_can_do() {
    let tasks = |name: &str| inspect(folder(name)).unwrap().tasks;
    for name in &FAMILIES[..WHOLE] {
        assert_eq!(tasks(name), [Task::FillMask, Task::Classify, Task::TokenClassify, Task::Answer], "{name}");
        // Without the classes' names, the tensors tell the same.
        let unnamed = with_settings(name, &[("architectures", Value::Null)]);
        assert_eq!(inspect(unnamed.path()).unwrap().tasks, tasks(name), "{name}");
    }
    for name in &FAMILIES[WHOLE..] {
        assert_eq!(tasks(name), [Task::FillMask, Task::Classify, Task::TokenClassify], "{name}");
    }
    assert_eq!(tasks("modernbert-answer"), [Task::Answer]);
    assert_eq!(tasks("bert-nli"), [Task::Classify, Task::ZeroShot]);
    assert_eq!(tasks("bert-reranker"), [Task::Classify, Task::Rerank]);
    assert!(inspect(common::fixtures().join("bert")).unwrap().tasks.is_empty());

    let error = FillMask::from_pretrained(path(&folder("bert-nli"))).err().unwrap();
    let message = "this checkpoint cannot do fill-mask: it is made for classify, zero-shot, embed, features";
    assert_eq!(error.to_string(), message);
    let refused = |error: Option<Error>| matches!(error, Some(Error::Model(mlxt_models::Error::NoSuchTask { .. })));
    assert!(refused(Reranker::from_pretrained(path(&folder("bert"))).err()));
    assert!(refused(ZeroShotClassifier::from_pretrained(path(&folder("bert"))).err()));
    assert!(refused(QuestionAnswerer::from_pretrained(path(&folder("bert-nli"))).err()));
}

#[test]
fn a_head_that_does_not_fit_is_reported_with_the_rest() {
    let labels = serde_json::json!({"0": "a", "1": "b"});
    let folder = with_settings("roberta", &[("id2label", labels), ("intermediate_size", 7.into())]);
    let error = TokenClassifier::from_pretrained(path(folder.path())).err().unwrap().to_string();
    assert!(error.contains("classifier.weight must be [2, 8], found [5, 8]"), "{error}");
    assert!(error.contains("roberta.encoder.layer.0.intermediate.dense.weight must be [7, 8]"), "{error}");
    let untied = with_settings("bert", &[("tie_word_embeddings", false.into())]);
    let error = FillMask::from_pretrained(path(untied.path())).err().unwrap().to_string();
    assert!(error.contains("1 missing (cls.predictions.decoder.weight"), "{error}");
    let unlabelled = with_settings("bert", &[("id2label", serde_json::json!({"7": "a"}))]);
    let error = TextClassifier::from_pretrained(path(unlabelled.path())).err().unwrap().to_string();
    assert!(error.contains("id2label"), "{error}");
}

#[test]
fn bad_inputs_have_errors_of_their_own() {
    let name = path(&folder("bert"));
    let fill = build(FillMask::builder(&name));
    let error = fill.fill(&["[MASK]", "a"], 1).unwrap_err();
    assert!(matches!(&error, Error::NoMask { index: 1, mask } if mask == "[MASK]"), "{error}");
    assert!(error.to_string().contains("[MASK]"));
    assert!(matches!(fill.fill(&["[MASK]"], 0), Err(Error::ZeroOption { .. })));
    assert_eq!(fill.fill(&["[MASK]"], usize::MAX).unwrap()[0][0].len(), fill.tokenizer().vocab_size());
    let long = "a ".repeat(100);
    assert!(matches!(fill.fill(&["[MASK]", &long], 1), Err(Error::TooLong { index: 1, .. })));
    let cut = build(FillMask::builder(&name).truncate(true).max_length(20));
    let error = cut.fill(&["[MASK]", &format!("{long} [MASK]")], 1).unwrap_err();
    assert!(matches!(&error, Error::MaskCut { index: 1, mask, limit: 20 } if mask == "[MASK]"), "{error}");
    assert!(matches!(cut.fill(&[&long], 1), Err(Error::NoMask { index: 0, .. })));

    let answer = build(QuestionAnswerer::builder(&name));
    assert!(matches!(answer.answer(&[("a", "b"), ("", "a")], 1), Err(Error::Empty { index: 1, what: "question" })));
    assert!(matches!(answer.answer(&[("a", "")], 1), Err(Error::Empty { index: 0, what: "context" })));
    assert!(matches!(answer.answer(&[("a", "b")], 0), Err(Error::ZeroOption { .. })));
    let error = answer.answer(&[("a", "b"), (&long, "a")], 1).unwrap_err();
    assert!(matches!(error, Error::NoRoom { index: 1, tokens: 103, limit: 60, stride: 30 }), "{error}");
    // Of spaces alone there is nothing to answer with; the pipeline says so in this way.
    let nothing = &answer.answer(&[("a", "  ")], 1).unwrap()[0][0];
    assert_eq!((nothing.answer.as_str(), nothing.score), ("", 0.0));

    let name = path(&folder("bert-nli"));
    let model = build(ZeroShotClassifier::builder(&name));
    assert!(matches!(model.classify::<_, &str>(&["a"], &[]), Err(Error::NoLabels)));
    assert!(matches!(model.classify(&["a", &long], &["b", "c"]), Err(Error::TooLong { index: 1, .. })));
    assert_eq!(model.classify::<&str, _>(&[], &["b"]).unwrap(), Vec::<Vec<Scored>>::new());
    let cut = build(ZeroShotClassifier::builder(&name).truncate(true));
    assert_eq!(cut.classify(&[&long], &["b", "c"]).unwrap()[0].len(), 2);
    let error = cut.classify(&["a", "b"], &["c", &long]).unwrap_err();
    assert!(matches!(error, Error::NoRoomForText { index: 0, limit: 60 }), "{error}");
    for template in ["", "nothing", "{} and {}"] {
        let error = ZeroShotClassifier::builder(&name).template(template).build().err();
        assert!(matches!(error, Some(Error::Template { .. })), "{template:?}");
    }
}

#[test]
fn activations_of_cross_encoders_that_are_not_known_are_refused() {
    let section = serde_json::json!({"activation_fn": "torch.nn.modules.activation.GLU"});
    let folder = with_settings("bert-reranker", &[("sentence_transformers", section)]);
    let error = Reranker::from_pretrained(path(folder.path())).err().unwrap();
    assert!(matches!(error, Error::UnsupportedSetting { setting: "activation_fn", .. }), "{error}");
}
