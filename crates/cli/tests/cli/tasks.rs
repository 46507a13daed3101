//! The commands of models with a head: the answers of Hugging Face pipelines, in every format, and refusals.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::{error_line, failure, file, fixture, lines, mlxt, stdout};

const FAMILIES: [&str; 6] = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"];
/// Of scores, which are probabilities or of their size; the goldens have six digits.
const TOLERANCE: f64 = 1e-5;

fn task(name: &str) -> String {
    fixture(&format!("tasks/{name}"))
}

/// What the pipelines answer for a task.
fn golden(name: &str, command: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(&task(name)).join("golden.json")).unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[command].take()
}

fn list(value: &Value) -> &[Value] {
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

/// The rows of a CSV file under its header.
fn table(args: &[&str], header: &[&str]) -> Vec<Vec<String>> {
    let csv = stdout(&[args, &["--format", "csv"]].concat());
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().unwrap(), header);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// The fields of `object` as CSV has them.
fn row(first: &[&Value], object: &Value, columns: &[&str]) -> Vec<String> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    first.iter().copied().chain(columns.iter().map(|&column| &object[column])).map(shown).collect()
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
    for name in FAMILIES {
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
    let many: String = (0..2100).map(|i| format!("{}\n", texts[i % texts.len()])).collect();
    let input = file(folder.path(), "many.jsonl", many);
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
        strings(&case["labels"]).into_iter().for_each(|label| args.extend(["--label", label]));
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

#[test]
fn every_format_holds_the_same_answers() {
    let bert = task("bert");
    let context = "A dog, a \"Dog\"; the DOG\nsleeps";
    // Arguments, the list in each object, its members' columns, and where those of masks are nested once more.
    let cases: [(&[&str], &str, &[&str]); 5] = [
        (
            &["fill-mask", "-m", &bert, "[MASK], a \"[MASK]\"", "[MASK]"],
            "masks",
            &["token", "token_id", "score", "sequence"],
        ),
        (&["classify", "-m", &bert, "a", "b"], "labels", &["label", "score"]),
        (
            &["zero-shot", "-m", &task("bert-nli"), "--label", "a, b", "--label", "c", "d", "e"],
            "labels",
            &["label", "score"],
        ),
        (
            &["ner", "-m", &bert, "UPPER, Straße", context],
            "entities",
            &["entity", "score", "start", "end", "text", "word"],
        ),
        (
            &["answer", "-m", &bert, "--question", "a?", "--context", context, "--top-k", "4"],
            "answers",
            &["answer", "score", "start", "end"],
        ),
    ];
    for (args, key, columns) in cases {
        let expected = lines(args);
        let json: Value = serde_json::from_str(&stdout(&[args, &["--format", "json"]].concat())).unwrap();
        assert_eq!(json, json!(expected));

        let mut header = vec!["index"];
        let mut rows = Vec::new();
        for object in &expected {
            for (number, part) in (0..).zip(list(&object[key])) {
                match part.as_array() {
                    Some(guesses) => {
                        header = vec!["index", "mask"];
                        let first = [&object["index"], &json!(number)];
                        rows.extend(guesses.iter().map(|guess| row(&first, guess, columns)));
                    }
                    None => rows.push(row(&[&object["index"]], part, columns)),
                }
            }
        }
        assert!(rows.len() > 1);
        header.extend(columns);
        let found = table(args, &header);
        let text = stdout(&[args, &["--format", "text"]].concat());
        assert_eq!(text.lines().count(), 1 + rows.len(), "{text}");
        assert_eq!(numbers_apart(&header, found), numbers_apart(&header, rows));
    }
    let args = ["rerank", "-m", &task("bert-reranker"), "--query", "a", "b", "c d"];
    let rows: Vec<_> = lines(&args).iter().map(|object| row(&[], object, &["index", "score"])).collect();
    let header = ["index", "score"];
    assert_eq!(numbers_apart(&header, table(&args, &header)), numbers_apart(&header, rows));
    assert_eq!(stdout(&[&args[..], &["--format", "text"]].concat()).lines().count(), 3);
}

/// Rows with the score read as the f32 it stands for: JSON and CSV may write the same one in different ways.
fn numbers_apart(header: &[&str], rows: Vec<Vec<String>>) -> Vec<(f32, Vec<String>)> {
    let score = header.iter().position(|&name| name == "score").unwrap();
    rows.into_iter().map(|mut row| (row.remove(score).parse().unwrap(), row)).collect()
}

#[test]
fn texts_come_from_files_and_options_reach_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(folder.path(), "in.csv", "id,body\n1,a fox\n2,\"the lazy, dog\"\n");
    let model = task("bert");
    let expected = stdout(&["classify", "-m", &model, "a fox", "the lazy, dog"]);
    let out = folder.path().join("out.jsonl");
    let mut args = vec!["classify", "-m", &model, "-i", &input, "--column", "body", "-o", out.to_str().unwrap()];
    args.extend(["--threads", "1", "--batch-tokens", "1", "--device", "cpu", "--dtype", "f32", "-q"]);
    assert_eq!(stdout(&args), "");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);

    let long = "fox ".repeat(200);
    for args in [&["classify", "-m", &model, &long][..], &["ner", "-m", &model, &long]] {
        assert!(failure(1, args).contains("text 0 has "));
        assert_eq!(lines(&[args, &["--truncate"]].concat()).len(), 1);
    }
    // The text is cut, the sentence with the label is not: the labels keep different scores.
    let labels = ["--label", "animals", "--label", "weather"];
    let cut = lines(&[&["zero-shot", "-m", &task("bert-nli"), &long, "--truncate"], &labels[..]].concat());
    assert_ne!(cut[0]["labels"][0]["score"], cut[0]["labels"][1]["score"]);
}

#[test]
fn wrong_usage_of_tasks_is_status_2() {
    let (bert, nli, reranker) = (task("bert"), task("bert-nli"), task("bert-reranker"));
    let cases: [(&[&str], &str); 16] = [
        (&["fill-mask", "-m", &bert, "[MASK]", "--format", "npy"], "guesses are no array of numbers"),
        (&["classify", "-m", &bert, "a", "-o", "/nonexistent/x.npy"], "labels are no array of numbers"),
        (&["ner", "-m", &bert, "a", "--format", "npy"], "entities are no array of numbers"),
        (&["rerank", "-m", &reranker, "--query", "a", "b", "--format", "npy"], "ranks are no array of numbers"),
        (&["zero-shot", "-m", &nli, "a", "--label", "b", "--format", "npy"], "labels are no array of numbers"),
        (&["answer", "-m", &bert, "--question", "a", "--context", "b", "--format", "npy"], "answers are no array"),
        (&["zero-shot", "-m", &nli, "a"], "--label"),
        (&["zero-shot", "-m", &nli, "a", "--label", "b", "--template", "no place"], "\"no place\" must have {} once"),
        (&["fill-mask", "-m", &bert, "[MASK]", "--top-k", "0"], "must be at least 1"),
        (&["answer", "-m", &bert, "--question", "a", "--context", "b", "--top-k", "0"], "must be at least 1"),
        (&["ner", "-m", &bert, "a", "--aggregation", "best"], "unknown aggregation \"best\""),
        (&["answer", "-m", &bert, "--question", "a"], "--context"),
        (&["answer", "-m", &bert, "--context", "a"], "--question"),
        (&["rerank", "-m", &reranker, "a"], "--query"),
        (&["rerank", "-m", &reranker, "--query", "a"], "-i FILE"),
        (&["classify", "-m", &bert], "give TEXT, or -i FILE"),
    ];
    for (args, expected) in cases {
        let error = failure(2, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn tasks_that_fail_are_status_1() {
    let (bert, nli, plain) = (task("bert"), task("bert-nli"), fixture("bert"));
    let long = "fox ".repeat(100);
    let answer = ["answer", "-m", &bert, "--question"];
    let cases: [(&[&str], &str); 10] = [
        (&["fill-mask", "-m", &bert, "[MASK]", "a"], "text 1 has no [MASK]"),
        (&["fill-mask", "-m", &nli, "[MASK]"], "cannot do fill-mask: it is made for classify, zero-shot"),
        (&["classify", "-m", &plain, "a"], "cannot do classify"),
        (&["ner", "-m", &nli, "a"], "cannot do ner"),
        (&["rerank", "-m", &nli, "--query", "a", "b"], "cannot do rerank"),
        (&["zero-shot", "-m", &bert, "--label", "a", "b"], "cannot do zero-shot"),
        (&["answer", "-m", &nli, "--question", "a", "--context", "b"], "cannot do answer"),
        (&[&answer[..], &["a", "--context", ""]].concat(), "the context of question 0 is empty"),
        (&[&answer[..], &[&long, "--context", "a"]].concat(), "no room for its context"),
        (&["zero-shot", "-m", &nli, "--label", "a", "--label", "b", "c", &long], "text 1 has "),
    ];
    for (args, expected) in cases {
        let error = failure(1, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn the_index_of_a_text_without_a_mask_counts_from_the_start_of_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(folder.path(), "in.txt", format!("{}fox\n", "[MASK]\n".repeat(3000)));
    let out = folder.path().join("out.jsonl");
    let output = mlxt(["fill-mask", "-m", &task("bert"), "-i", &input, "-o"]).arg(&out).output().unwrap();
    assert!(error_line(1, &output).contains("text 3000 has no [MASK]"));
    assert!(!out.exists());
}

#[test]
fn inspect_lists_the_tasks_of_a_checkpoint() {
    let tasks = |name: &str| lines(&["inspect", &task(name)])[0]["tasks"].clone();
    let every = ["tokenize", "features", "embed"];
    for name in FAMILIES {
        assert_eq!(tasks(name), json!([&every[..], &["fill-mask", "classify", "ner", "answer"]].concat()), "{name}");
    }
    assert_eq!(tasks("bert-nli"), json!([&every[..], &["classify", "zero-shot"]].concat()));
    assert_eq!(tasks("bert-reranker"), json!([&every[..], &["classify", "rerank"]].concat()));
    let text = stdout(&["inspect", &task("bert-nli"), "--format", "text"]);
    assert!(text.contains("tokenize, features, embed, classify, zero-shot\n"), "{text}");
}
