//! Every way to be wrong ends with its status and one line that names the thing.

use serde_json::{Value, json};

use crate::{error_line, failure, file, fixture, mlxt, stdout, task};

#[test]
fn wrong_usage_is_status_2() {
    let model = fixture("bert");
    let m = model.as_str();
    let cases: [(&[&str], &str); 31] = [
        (&[], "no command"),
        (&["study"], "study does what? One of: run, report, compare"),
        (&["-q", "setup"], "setup does what? One of: mlx (see mlxt setup --help)"),
        (&["answer", "-m", m, "--question", "a"], "no context: give the text to answer the question from"),
        (&["answer", "-m", m, "--context", "a"], "no question: give --question too"),
        (&["translate"], "unrecognized subcommand 'translate'"),
        (&["embed", "a"], "--model"),
        (&["embed", "-m", m], "give TEXT, or -i FILE"),
        (&["embed", "-m", m, "a", "-i", "b.txt"], "both TEXT and -i FILE"),
        (&["embed", "-m", m, "a", "--threads", "0"], "'0' for '--threads <N>': must be at least 1"),
        (&["embed", "-m", m, "a", "--threads", "-1"], "'-1' for '--threads <N>': must be at least 1"),
        (&["embed", "-m", m, "a", "--threads", "1000000000000000"], "must be at most 4096"),
        (&["embed", "-m", m, "a", "--threads", "18446744073709551615"], "must be at most 4096"),
        (&["study", "run", "quick", "--threads", "4097"], "'4097' for '--threads <N>': must be at most 4096"),
        (&["embed", "-m", m, "a", "--batch-tokens", "0"], "--batch-tokens"),
        (&["embed", "-m", m, "a", "--max-length", "many"], "--max-length"),
        (&["embed", "-m", m, "a", "--pooling", "median"], "'median'"),
        (&["embed", "-m", m, "a", "--normalize", "--no-normalize"], "cannot be used with"),
        (&["embed", "-m", m, "a", "--device", "gpu"], "unknown device \"gpu\""),
        (&["embed", "-m", m, "a", "--dtype", "f64"], "unknown precision \"f64\""),
        (&["embed", "-m", m, "a", "--format", "xml"], "'xml'"),
        (&["embed", "-m", m, "a", "-q", "-v"], "cannot be used with"),
        (&["embed", "-m", m, "a", "--colour"], "--colour"),
        (&["embed", "-m", m, "a", "--column", "b"], "--input"),
        (&["embed", "-m", m, "-i", "a.txt", "--column", "b"], "lines of text have no columns"),
        (&["embed", "-m", m, "-i", "a.json"], "cannot read .json files"),
        (&["features", "-m", m, "a", "b", "--format", "npy"], "features of several texts"),
        (&["features", "-m", m, "a", "--format", "csv", "--pooler"], "--pooler has no place in csv"),
        (&["tokenize", "-m", m, "a", "--format", "npy"], "tokens are no array"),
        (&["inspect", m, "--format", "csv"], "no table"),
        (&["inspect"], "<MODEL>"),
    ];
    for (args, expected) in cases {
        let error = failure(2, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn a_name_that_promises_compression_is_refused_whatever_the_format() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["out.jsonl.gz", "out.csv.zst", "out.npz", "OUT.GZ"] {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        for args in [
            &["tokenize", "-m", &fixture("bert"), "fox", "-o", out][..],
            &["tokenize", "-m", &fixture("bert"), "fox", "--format", "jsonl", "-o", out],
            &["doctor", "-o", out],
            &["study", "merge", "a.jsonl", "-o", out],
            &["study", "run", "quick", "-o", out],
        ] {
            let error = failure(2, args);
            assert!(error.contains(name) && error.contains("nothing is compressed here"), "{error}");
            assert!(error.contains("let it end in .jsonl"), "{error}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_name_of_a_format_that_there_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.TSV");
    let error = failure(2, &["tokenize", "-m", &fixture("bert"), "fox", "-o", out.to_str().unwrap()]);
    assert!(error.contains("out.TSV") && error.contains("no .tsv files are written: let it end in .jsonl"), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_model_has_one_checkpoint() {
    let given = format!("bert-base={}", fixture("bert"));
    let error = failure(2, &["study", "run", "quick", "--checkpoint", &given, "--checkpoint", &given]);
    assert!(error.contains("--checkpoint bert-base=") && error.contains("name one"), "{error}");
}

#[test]
fn a_number_below_zero_is_told_its_least_by_every_option() {
    for (command, option, least) in [
        (&["embed", "-m", "m", "a"][..], "--threads", "must be at least 1"),
        (&["embed", "-m", "m", "a"], "--batch-tokens", "must be at least 1"),
        (&["embed", "-m", "m", "a"], "--max-length", "must be at least 1"),
        (&["fill-mask", "-m", "m", "a"], "--top-k", "must be at least 1"),
        (&["answer", "-m", "m", "--question", "q", "--context", "c"], "--top-k", "must be at least 1"),
        (&["answer", "-m", "m", "--question", "q", "--context", "c"], "--stride", "must be at least 0"),
        (&["convert", "-m", "m", "-o", "o"], "--bits", "must be one of [4, 8]"),
        (&["convert", "-m", "m", "-o", "o", "--bits", "4"], "--group", "must be one of [32, 64, 128]"),
        (&["study", "run", "quick"], "--threads", "must be at least 1"),
        (&["study", "run", "quick"], "--seed", "must be at least 0"),
        (&["study", "compare", "a", "b"], "--threshold", "must be a finite number, 0 at least"),
    ] {
        let error = failure(2, &[command, &[option, "-1"]].concat());
        assert!(error.contains(&format!("'-1' for '{option} <")) && error.contains(least), "{error}");
    }
    // Of an option that takes any text it is one; among the texts it still looks like an option.
    let labels = ["zero-shot", "-m", &task("bert-nli"), "fox", "--label", "-1", "--label", "2"];
    assert!(stdout(&labels).contains("\"-1\""));
    assert!(failure(2, &["embed", "-m", "m", "-1"]).contains("unexpected argument '-1'"));
}

#[test]
#[cfg(unix)]
fn an_argument_that_is_no_text_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"a\xff");
    let output = mlxt(["embed", "-m", &fixture("bert")].map(OsStr::new).into_iter().chain([odd])).output().unwrap();
    let error = error_line(2, &output);
    assert!(error.contains("must be UTF-8: argument 4 is \"a\u{fffd}\""), "{error}");
}

#[test]
fn the_help_names_every_precision() {
    let help = stdout(&["embed", "--help"]);
    let error = failure(2, &["embed", "-m", "m", "a", "--dtype", "f64"]);
    let known = error.split("one of ").nth(1).unwrap().split(" (see").next().unwrap();
    let help = help.split("How weights are kept").nth(1).unwrap().split("default").next().unwrap();
    for precision in known.trim().split(", ") {
        assert!(help.contains(precision), "{precision}: {help}");
    }
}

#[test]
fn features_of_a_file_of_texts_are_no_single_array() {
    let folder = tempfile::tempdir().unwrap();
    let two = file(folder.path(), "two.txt", "a\nb\n");
    let out = folder.path().join("x.npy");
    let out = out.to_str().unwrap();
    let error = failure(2, &["features", "-m", &fixture("bert"), "-i", &two, "-o", out]);
    assert!(error.contains("features of several texts"), "{error}");
    assert!(!std::path::Path::new(out).exists());
}

#[test]
fn what_does_not_work_is_status_1() {
    let model = fixture("bert");
    let m = model.as_str();
    let long = "fox ".repeat(3000);
    let cases: [(&[&str], &str); 14] = [
        (&["embed", "-m", "/nonexistent/model", "a"], "/nonexistent/model"),
        (&["embed", "-m", "org/absent", "a"], "org/absent is not complete in the Hugging Face cache"),
        (&["embed", "-m", m, "a", &long], "text 1 has "),
        (&["embed", "-m", m, "a", "--max-length", "1000000"], "1000000"),
        (&["embed", "-m", m, "a", "--device", "cuda:4000"], "device cuda:4000 cannot be used"),
        (&["embed", "-m", m, "a", "--device", "cuda:3"], "device cuda:3 cannot be used"),
        (&["embed", "-m", m, "a", "--device", "reference", "--dtype", "q4"], "cannot run in q4; it can in f32"),
        (&["embed", "-m", m, "a", "--device", "reference", "--dtype", "tf32"], "cannot run in tf32; it can in f32"),
        (
            &["embed", "-m", m, "a", "--device", "cpu", "--dtype", "tf32"],
            "backend cpu cannot run in tf32; it can in f32",
        ),
        (&["features", "-m", &fixture("roberta"), "a", "--pooler"], "has no pooler"),
        (&["tokenize", "-m", m, "a b c d e", "--max-length", "4"], "the limit is 4"),
        (&["pull", "org/absent"], "offline"),
        (&["demo"], "offline"),
        (&["inspect", "/nonexistent/model"], "/nonexistent/model"),
    ];
    for (args, expected) in cases {
        let error = failure(1, args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let cut = mlxt(["embed", "-m", m, &long, "--truncate"]).output().unwrap();
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
}

#[test]
fn the_index_of_a_bad_text_counts_from_the_start_of_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}{}\n", "fox\n".repeat(9000), "fox ".repeat(3000));
    let input = file(folder.path(), "in.txt", text);
    let out = folder.path().join("out.jsonl");
    let error = failure(1, &["embed", "-m", &fixture("bert"), "-i", &input, "-o", out.to_str().unwrap()]);
    assert!(error.contains("text 9000 has "), "{error}");
    assert!(!out.exists());
}

#[test]
fn damaged_models_are_one_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str, change: &dyn Fn(&std::path::Path)| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(format!("{}/{file}", fixture("bert")), path.join(file)).unwrap();
        }
        change(&path);
        path.to_str().unwrap().to_owned()
    };
    let edit = |path: &std::path::Path, key: &str, value: Value| {
        let text = std::fs::read_to_string(path.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    };
    let cut = copy("cut", &|p| {
        let weights = std::fs::read(p.join("model.safetensors")).unwrap();
        std::fs::write(p.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    });
    let empty = copy("empty", &|p| std::fs::write(p.join("tokenizer.json"), "{}").unwrap());
    let deeper = copy("deeper", &|p| edit(p, "num_hidden_layers", json!(9)));
    let strange = copy("strange", &|p| edit(p, "hidden_act", json!("sine\nwave")));
    for (model, expected) in
        [(cut, "model.safetensors"), (empty, "tokenizer.json"), (deeper, "missing"), (strange, "hidden_act")]
    {
        for command in ["embed", "features"] {
            let error = failure(1, &[command, "-m", &model, "a"]);
            assert!(error.contains(expected), "{model}: {error}");
        }
    }
}
