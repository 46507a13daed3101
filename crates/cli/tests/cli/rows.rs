//! Rows of files: those that cannot be used, and those of several columns.

use serde_json::{Value, json};

use crate::{error_line, failure, file, fixture, lines, mlxt, task};

/// Results of a run that skips rows, and what it says of them.
fn skipping(args: &[&str]) -> (Vec<Value>, Vec<String>) {
    let output = mlxt(args).args(["--on-error", "skip"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let found = String::from_utf8(output.stdout).unwrap();
    let found = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (found, said.lines().map(str::to_owned).collect())
}

fn indices(found: &[Value]) -> Vec<u64> {
    found.iter().map(|object| object["index"].as_u64().unwrap()).collect()
}

#[test]
fn rows_that_cannot_be_read_are_skipped_and_the_others_keep_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let cases: [(&str, &[u8], &[&str]); 3] = [
        ("a.txt", b"fox\n\xff\nlast\n\xfe", &["line 2 of ", "line 4 of "]),
        (
            "b.jsonl",
            b"{\"text\": \"fox\"}\n\n{\"text\": 1}\n{\"text\": \"last\"}\n{",
            &["\"text\" is a number in line 3 of ", "line 5 of "],
        ),
        ("c.csv", b"text,n\nfox,1\nb\n\"last\n\",2\n\xff,3\n", &["line 3 of ", "line 6 of "]),
    ];
    for (name, content, expected) in cases {
        let path = file(folder.path(), name, content);
        let (found, said) = skipping(&["tokenize", "-m", &model, "-i", &path]);
        assert_eq!(indices(&found), [0, 2], "{name}");
        assert_eq!(said.len(), 3, "{said:?}");
        for (line, expected) in said.iter().zip(expected) {
            assert!(line.starts_with("mlxt: skipped: ") && line.contains(expected), "{line}");
        }
        assert_eq!(said[2], "mlxt: 2 of 4 rows skipped");
        let error = failure(1, &["tokenize", "-m", &model, "-i", &path]);
        assert!(error.contains(expected[0]), "{error}");
    }
}

#[test]
fn rows_that_the_model_cannot_take_are_skipped_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let bad = [0, 7, 8, 500, 999];
    let text = |i: usize| if bad.contains(&i) { "fox ".repeat(3000) } else { format!("the {i} foxes") };
    let path = file(folder.path(), "x.txt", (0..1000).map(|i| text(i) + "\n").collect::<String>());
    let (found, said) = skipping(&["embed", "-m", &model, "-i", &path]);
    assert_eq!(indices(&found), (0..1000).filter(|i| !bad.contains(&(*i as usize))).collect::<Vec<_>>());
    assert_eq!(said.len(), 6);
    assert!(said[3].contains("line 501 of ") && said[3].contains("text 500 has "), "{}", said[3]);
    // The others are what they are without them.
    let alone = &lines(&["embed", "-m", &model, &text(501)])[0];
    let same = found.iter().find(|object| object["index"] == 501).unwrap();
    assert_eq!(same["embedding"], alone["embedding"]);

    let error = failure(1, &["embed", "-m", &model, "-i", &path]);
    assert!(error.contains("line 1 of ") && error.contains("text 0 has "), "{error}");
    let error = failure(2, &["embed", "-m", &model, "-i", &path, "--on-error", "skip", "--format", "npy"]);
    assert!(error.contains("npy array cannot say which rows"), "{error}");
}

#[test]
fn texts_without_a_mask_are_skipped() {
    let model = task("bert");
    let (found, said) = skipping(&["fill-mask", "-m", &model, "a [MASK]", "a fox", "the [MASK]"]);
    assert_eq!(indices(&found), [0, 2]);
    assert!(said[0].contains("text 1 has no [MASK]"), "{said:?}");
}

#[test]
fn questions_and_pairs_come_from_columns() {
    let folder = tempfile::tempdir().unwrap();
    let model = task("bert");
    let pairs = [("Was kostet das?", "The quick brown fox jumps."), ("who", "the lazy dog sleeps, and the fox")];
    let one = |(question, context)| {
        lines(&["answer", "-m", &model, "--question", question, "--context", context]).remove(0)["answers"].clone()
    };
    let expected: Vec<Value> = pairs.into_iter().map(one).collect();
    let rows = |a: &str, b: &str| {
        let row = |(question, context): &(&str, &str)| format!("{}\n", json!({a: question, b: context}));
        pairs.iter().map(row).collect::<String>()
    };
    let answers = |args: &[&str]| -> Vec<Value> {
        let found = lines(&[&["answer", "-m", &model], args].concat());
        assert_eq!(indices(&found), [0, 1]);
        found.into_iter().map(|object| object["answers"].clone()).collect()
    };
    let path = file(folder.path(), "a.jsonl", rows("question", "context"));
    assert_eq!(answers(&["-i", &path]), expected);
    let path = file(folder.path(), "b.jsonl", rows("q", "c"));
    assert_eq!(answers(&["-i", &path, "--question-column", "q", "--context-column", "c"]), expected);
    let csv =
        format!("id,context,question\n1,\"{}\",{}\n2,\"{}\",{}\n", pairs[0].1, pairs[0].0, pairs[1].1, pairs[1].0);
    let path = file(folder.path(), "c.csv", csv);
    assert_eq!(answers(&["-i", &path]), expected);

    let path =
        file(folder.path(), "d.jsonl", rows("question", "context") + "{\"question\": \"\", \"context\": \"a\"}\n");
    let error = failure(1, &["answer", "-m", &model, "-i", &path]);
    assert!(error.contains("line 3 of ") && error.contains("the question of question 2 is empty"), "{error}");
    for (args, expected) in
        [(&["answer", "-m", &model][..], "no question"), (&["answer", "-m", &model, "--question", "a"], "no context")]
    {
        assert!(failure(2, args).contains(expected), "{args:?}");
    }

    let path = file(folder.path(), "e.jsonl", rows("text", "other"));
    let labels = lines(&["classify", "-m", &model, "-i", &path, "--pair-column", "other"]);
    for (found, (first, second)) in labels.iter().zip(pairs) {
        let alone = lines(&["classify", "-m", &model, first, "--pair", second]).remove(0);
        assert_eq!(found["labels"], alone["labels"]);
    }
    let lines_of_text = file(folder.path(), "f.txt", "a\n");
    let output = mlxt(["classify", "-m", &model, "-i", &lines_of_text, "--pair-column", "other"]).output().unwrap();
    assert!(error_line(2, &output).contains("lines of text have no columns"));
}
