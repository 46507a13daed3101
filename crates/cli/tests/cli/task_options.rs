//! The commands of models with a head, besides their answers: formats, options, and every way to be wrong.

use serde_json::{Value, json};

use crate::tasks::{FAMILIES, list};
use crate::{error_line, failure, file, fixture, lines, mlxt, stdout, task};

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
fn every_format_holds_the_same_answers() {
    let bert = task("bert");
    let context = "A dog, a \"Dog\"; the DOG\nsleeps";
    // Arguments, the list in each object, and the columns of what is in it.
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
        assert_eq!(scores_apart(&header, found), scores_apart(&header, rows));
    }
    let args = ["rerank", "-m", &task("bert-reranker"), "--query", "a", "b", "c d"];
    let rows: Vec<_> = lines(&args).iter().map(|object| row(&[], object, &["index", "score"])).collect();
    let header = ["index", "score"];
    assert_eq!(scores_apart(&header, table(&args, &header)), scores_apart(&header, rows));
    assert_eq!(stdout(&[&args[..], &["--format", "text"]].concat()).lines().count(), 3);
}

/// Rows with the score read as the f32 it stands for: JSON and CSV may write the same one in different ways.
fn scores_apart(header: &[&str], rows: Vec<Vec<String>>) -> Vec<(f32, Vec<String>)> {
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
        // These checkpoints have no head for questions.
        let heads = ["fill-mask", "classify", "ner", "answer"];
        let heads = if matches!(name, "modernbert" | "nomic-bert") { &heads[..3] } else { &heads[..] };
        assert_eq!(tasks(name), json!([&every[..], heads].concat()), "{name}");
    }
    assert_eq!(tasks("bert-nli"), json!([&every[..], &["classify", "zero-shot"]].concat()));
    assert_eq!(tasks("bert-reranker"), json!([&every[..], &["classify", "rerank"]].concat()));
    let text = stdout(&["inspect", &task("bert-nli"), "--format", "text"]);
    assert!(text.contains("tokenize, features, embed, classify, zero-shot\n"), "{text}");
}
