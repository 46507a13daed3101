//! The commands of models with a head: their objects against the answers of Hugging Face pipelines.
//!
//! Formats, options and refusals are in `task_options.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::{file, lines, task};

/// Every family.
pub(crate) const FAMILIES: [&str; 10] = [
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
/// Checkpoints that answer questions: those of the families whose heads stand side by side, and one of its own.
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
/// Of scores, which are probabilities or of their size; the goldens have six digits.
const TOLERANCE: f64 = 1e-5;

/// What the pipelines answer for a task.
fn golden(name: &str, command: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(&task(name)).join("golden.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[command].take()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().map(|v| v.as_str().unwrap()).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The same lists, texts and whole numbers, and scores within the tolerance. Of an object, what is wanted.
#[track_caller]
fn same(what: &str, found: &Value, want: &Value) {
    match want {
        Value::Array(want) => {
            assert_eq!(list(found).len(), want.len(), "{what}: {found}");
            found.as_array().unwrap().iter().zip(want).for_each(|(found, want)| same(what, found, want));
        }
        Value::Object(want) => want.iter().for_each(|(key, want)| same(what, &found[key], want)),
        Value::Number(number) if number.is_f64() => {
            let off = (found.as_f64().unwrap() - number.as_f64().unwrap()).abs();
            assert!(off <= TOLERANCE, "{what}: {found} instead of {want}");
        }
        _ => assert_eq!(found, want, "{what}"),
    }
}

/// `answers` for each text under `key`, with its place.
#[track_caller]
fn same_answers(what: &str, found: &[Value], key: &str, answers: &Value) {
    assert_eq!(found.len(), list(answers).len(), "{what}");
    for (i, (found, want)) in found.iter().zip(list(answers)).enumerate() {
        assert_eq!(keys(found), BTreeSet::from(["index", key]), "{what}");
        assert_eq!(found["index"], i, "{what}");
        same(what, &found[key], want);
    }
}

#[test]
fn fill_mask_answers_as_the_pipeline() {
    for name in FAMILIES {
        let golden = golden(name, "fill-mask");
        let model = task(name);
        let args = [&["fill-mask", "-m", &model, "--top-k", "3", "--"], &strings(&golden["texts"])[..]].concat();
        let found = lines(&args);
        same_answers(name, &found, "masks", &golden["answers"]);
        assert_eq!(keys(&found[0]["masks"][0][0]), BTreeSet::from(["score", "sequence", "token", "token_id"]));
    }
    let found = lines(&["fill-mask", "-m", &task("bert"), "the [MASK] fox"]);
    assert_eq!(list(&found[0]["masks"][0]).len(), 5);
}

#[test]
fn classify_answers_as_the_pipeline() {
    for name in FAMILIES {
        let golden = golden(name, "classify");
        let case = &golden["cases"][0];
        assert!(case["problem"].is_null());
        let model = task(name);
        let found = lines(&[&["classify", "-m", &model, "--"], &strings(&golden["texts"])[..]].concat());
        same_answers(name, &found, "labels", &case["texts"]);
        for (pair, want) in list(&golden["pairs"]).iter().zip(list(&case["pairs"])) {
            let pair = strings(pair);
            let found = lines(&["classify", "-m", &model, pair[0], "--pair", pair[1]]);
            same_answers(name, &found, "labels", &json!([want]));
        }
    }
}

#[test]
fn classify_reads_the_kind_of_problem_from_the_config() {
    let golden = golden("bert", "classify");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(Path::new(&task("bert")).join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let model = folder.path().to_str().unwrap();
    assert_eq!(list(&golden["cases"]).len(), 3);
    for case in list(&golden["cases"]) {
        config["problem_type"] = case["problem"].clone();
        std::fs::write(&path, config.to_string()).unwrap();
        let found = lines(&[&["classify", "-m", model, "--"], &strings(&golden["texts"])[..]].concat());
        same_answers(&case["problem"].to_string(), &found, "labels", &case["texts"]);
    }
}

#[test]
fn ner_answers_as_the_pipeline() {
    for name in FAMILIES {
        let golden = golden(name, "ner");
        let texts = strings(&golden["texts"]);
        let model = task(name);
        for (aggregation, answers) in golden["answers"].as_object().unwrap() {
            let what = format!("{name} {aggregation}");
            let found = lines(&[&["ner", "-m", &model, "--aggregation", aggregation, "--"], &texts[..]].concat());
            let wanted = |want: &Value| {
                let part = |key: &str| want[key].clone();
                json!({"entity": part("label"), "score": part("score"), "start": part("start"), "end": part("end"),
                    "word": part("word")})
            };
            let answers: Vec<Vec<Value>> =
                list(answers).iter().map(|answer| list(answer).iter().map(wanted).collect()).collect();
            same_answers(&what, &found, "entities", &json!(answers));
            for (text, object) in texts.iter().zip(&found) {
                let characters: Vec<char> = text.chars().collect();
                for entity in list(&object["entities"]) {
                    let place = |key: &str| entity[key].as_u64().unwrap() as usize;
                    let written: String = characters[place("start")..place("end")].iter().collect();
                    assert_eq!(entity["text"], written, "{what}");
                    assert_eq!(keys(entity), BTreeSet::from(["end", "entity", "score", "start", "text", "word"]));
                }
            }
            if aggregation == "none" {
                assert_eq!(lines(&[&["ner", "-m", &model, "--"], &texts[..]].concat()), found);
            }
        }
    }
}

#[test]
fn answer_answers_as_the_pipeline() {
    for name in ANSWERING {
        let golden = golden(name, "answer");
        let model = task(name);
        for case in list(&golden["cases"]) {
            let number = |key: &str| case[key].to_string();
            let (top_k, max_length, stride) = (number("top_k"), number("max_length"), number("stride"));
            for (question, want) in list(&golden["questions"]).iter().zip(list(&case["answers"])) {
                let question = strings(question);
                let mut args = vec!["answer", "-m", &model, "--question", question[0], "--context", question[1]];
                args.extend(["--top-k", &top_k, "--max-length", &max_length, "--stride", &stride]);
                if case["impossible"] == true {
                    args.push("--handle-impossible-answer");
                }
                let found = lines(&args);
                same_answers(&format!("{name} {question:?}"), &found, "answers", &json!([want]));
                let answer = &found[0]["answers"][0];
                assert_eq!(keys(answer), BTreeSet::from(["answer", "end", "score", "start"]));
            }
        }
    }
    // What the first case says is what a model of 60 tokens does unless told otherwise.
    let golden = golden("bert", "answer");
    let question = strings(&golden["questions"][1]);
    let found = lines(&["answer", "-m", &task("bert"), "--question", question[0], "--context", question[1]]);
    same_answers("unsaid", &found, "answers", &json!([golden["cases"][0]["answers"][1]]));
}

#[test]
fn rerank_answers_as_the_cross_encoder_best_first() {
    let golden = golden("bert-reranker", "rerank");
    let query = golden["query"].as_str().unwrap();
    let model = task("bert-reranker");
    let args = ["rerank", "-m", &model, "--query", query];
    let found = lines(&[&args[..], &["--"], &strings(&golden["texts"])[..]].concat());
    same("rerank", &json!(found), &golden["identity"]);
    assert!(found.iter().all(|object| keys(object) == BTreeSet::from(["index", "score"])));

    // More documents than are read at a time: the order is still that of all of them, equal ones as they came.
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<Value> = list(&golden["texts"]).iter().map(|text| json!({"text": text})).collect();
    let many: Vec<String> = (0..2100).map(|i| texts[i % texts.len()].to_string()).collect();
    let input = file(folder.path(), "many.jsonl", many.join("\n"));
    let many = lines(&[&args[..], &["-i", &input]].concat());
    assert_eq!(many.len(), 2100);
    let key = |object: &Value| (object["score"].as_f64().unwrap(), object["index"].as_u64().unwrap());
    assert!(many.windows(2).map(|w| (key(&w[0]), key(&w[1]))).all(|(a, b)| a.0 > b.0 || a.0 == b.0 && a.1 < b.1));
    for (object, i) in many.iter().zip(0..) {
        let best = &found[i * texts.len() / 2100];
        assert_eq!(object["index"].as_u64().unwrap() as usize % texts.len(), best["index"], "{i}");
        assert_eq!(object["score"], best["score"], "{i}");
    }
}

#[test]
fn zero_shot_answers_as_the_pipeline() {
    let golden = golden("bert-nli", "zero-shot");
    let model = task("bert-nli");
    for case in list(&golden["cases"]) {
        let mut args = vec!["zero-shot", "-m", &model];
        for label in strings(&case["labels"]) {
            args.extend(["--label", label]);
        }
        let template = case["template"].as_str().unwrap();
        if template != "This example is {}." {
            args.extend(["--template", template]);
        }
        if case["multi"] == true {
            args.push("--multi-label");
        }
        args.push("--");
        args.extend(strings(&golden["texts"]));
        same_answers(template, &lines(&args), "labels", &case["answers"]);
    }
}
