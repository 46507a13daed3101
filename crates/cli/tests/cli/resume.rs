//! Runs that are killed and gone on with lose nothing and double nothing.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::{error_line, file, fixture, mlxt, task};

/// Chunks of `embed` have 4096 rows: this is six of them.
const ROWS: usize = 22_000;

/// A file of short texts, all different, some with what CSV and JSON have to escape.
fn texts(folder: &Path) -> String {
    let mut text = String::new();
    for i in 0..ROWS {
        writeln!(text, "the \"{i}\" foxes, {}", "jump ".repeat(i % 5)).unwrap();
    }
    file(folder, "in.txt", text)
}

/// Rows that the journal at `path` says are done.
fn rows_done(path: &Path) -> Option<u64> {
    let journal: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    journal["done"]["rows"].as_u64()
}

#[test]
fn a_run_that_is_killed_and_gone_on_with_equals_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let input = texts(folder.path());
    let formats = ["x.jsonl", "x.csv", "x.json", "x.npy", "x.txt"].map(|name| ("embed", name));
    // Features are long enough for a row group in every chunk.
    for (task, name) in formats.into_iter().chain([("features", "x.parquet")]) {
        let whole = folder.path().join(format!("whole-{name}"));
        let output = mlxt([task, "-q", "-m", &model, "-i", &input, "-o"]).arg(&whole).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let out = folder.path().join(name);
        let journal = folder.path().join(format!("{name}.resume"));
        let mut kills = 0;
        // The first run has no --resume, and each is killed at another moment after it has noted something.
        for delay in [None, Some(0), Some(7), Some(60)] {
            let mut command = mlxt([task, "-q", "-m", &model, "-i", &input, "-o"]);
            command.arg(&out).args(delay.map(|_| "--resume")).stdout(Stdio::null()).stderr(Stdio::null());
            let before = rows_done(&journal);
            let mut child = command.spawn().unwrap();
            while rows_done(&journal) <= before && child.try_wait().unwrap().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(delay.unwrap_or(0)));
            child.kill().unwrap();
            kills += u32::from(!child.wait().unwrap().success());
            assert!(rows_done(&journal) > before || out.exists(), "no progress in {name}");
        }
        assert!(kills >= 2, "{name} was killed {kills} times");
        let last = mlxt([task, "-q", "-m", &model, "-i", &input, "--threads", "1", "--resume", "-o"]);
        let output = { last }.arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap(), "{name} differs");
        assert!(!journal.exists() && !folder.path().join(format!("{name}.partial")).exists());
    }
}

#[test]
fn what_lies_behind_the_journal_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let mut text = "{\"text\": \"fox\"}\n".repeat(6000);
    text.push_str("{\"text\": null}\n{\"text\": \"last\"}\n");
    let input = file(folder.path(), "in.jsonl", text);
    let out = folder.path().join("out.jsonl");
    let run = |more: &[&str]| mlxt(["embed", "-m", &model, "-i", &input, "-o"]).arg(&out).args(more).output().unwrap();
    let error = error_line(1, &run(&[]));
    assert!(error.contains("line 6001 of ") && error.contains("--resume goes on"), "{error}");
    assert!(!out.exists());
    // A crash may have left half a result.
    let partial = folder.path().join("out.jsonl.partial");
    let mut bytes = std::fs::read(&partial).unwrap();
    bytes.extend(b"{\"index\": 9");
    std::fs::write(&partial, bytes).unwrap();

    let output = run(&["--resume", "--on-error", "skip"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("skipped: \"text\" is null in line 6001 of "), "{said}");
    assert!(said.ends_with("mlxt: 1 of 6002 rows skipped\n"), "{said}");
    let found = std::fs::read_to_string(&out).unwrap();
    let indices: Vec<u64> =
        found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, (0..6000).chain([6001]).collect::<Vec<_>>());
}

#[test]
fn another_input_or_other_options_are_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (model, reranker) = (fixture("bert"), task("bert-reranker"));
    let text = format!("{}\n{}", "{\"text\": \"fox\"}\n".repeat(5000), "{}\n");
    let input = file(folder.path(), "in.jsonl", &text);
    let out = folder.path().join("out.jsonl");
    let run = |more: &[&str]| mlxt(["embed", "-m", &model, "-i", &input, "-o"]).arg(&out).args(more).output().unwrap();
    error_line(1, &run(&[]));
    let error = error_line(1, &run(&["--resume", "--pooling", "cls"]));
    assert!(error.contains("--pooling was not given") && error.contains("and is cls now"), "{error}");
    let error = error_line(1, &run(&["--resume", "--dtype", "bf16"]));
    assert!(error.contains("--dtype was f32 in the run that was interrupted, and is bf16 now"), "{error}");
    // Still there, and of use.
    let error = error_line(1, &run(&["--resume", "--threads", "1"]));
    assert!(error.contains("has no \"text\""), "{error}");
    file(folder.path(), "in.jsonl", text + "\n");
    let error = error_line(1, &run(&["--resume"]));
    assert!(error.contains("the input has changed"), "{error}");
    let journal = folder.path().join("out.jsonl.resume");
    std::fs::write(&journal, "{").unwrap();
    assert!(error_line(1, &run(&["--resume"])).contains("damaged"));

    for (args, expected) in [
        (&["embed", "-m", &model, "fox", "--resume"][..], "--resume needs -i FILE and -o FILE"),
        (&["embed", "-m", &model, "-i", &input, "--resume"], "--resume needs -i FILE and -o FILE"),
        (&["rerank", "-m", &reranker, "--query", "q", "-i", &input, "--resume", "-o", "x"], "nothing to go on with"),
    ] {
        let error = error_line(2, &mlxt(args).output().unwrap());
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

#[test]
fn another_device_is_not_gone_on_with_however_it_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let input = file(folder.path(), "in.jsonl", "{\"text\": \"fox\"}\n".repeat(5000) + "{}\n");
    let (out, journal) = (folder.path().join("out.jsonl"), folder.path().join("out.jsonl.resume"));
    let run = |task: &str, more: &[&str]| {
        let output = mlxt([task, "-m", &model, "-i", &input, "-o"]).arg(&out).args(more).output().unwrap();
        error_line(1, &output)
    };
    // Whatever is the fastest here.
    run("embed", &[]);
    let noted = || serde_json::from_slice::<Value>(&std::fs::read(&journal).unwrap()).unwrap();
    let device = noted()["loaded"]["device"].as_str().unwrap().to_owned();
    let other = run("embed", &["--resume", "--device", "reference"]);
    let expected = format!("the device was {device} in the run that was interrupted, and is reference now");
    assert!(other.contains(&expected), "{other}");
    // The same one by its name is as good.
    let error = run("embed", &["--resume", "--device", &device]);
    assert!(error.contains("has no \"text\""), "{error}");
    // As if a GPU had been there.
    let mut before = noted();
    before["loaded"]["device"] = "cuda:7".into();
    std::fs::write(&journal, before.to_string()).unwrap();
    let error = run("embed", &["--resume"]);
    assert!(
        error.contains(&format!("the device was cuda:7 in the run that was interrupted, and is {device}")),
        "{error}"
    );

    // Tokens are the same everywhere.
    run("tokenize", &[]);
    let error = run("tokenize", &["--resume", "--device", "reference"]);
    assert!(error.contains("has no \"text\""), "{error}");
}

#[test]
fn another_model_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let copy = |name: &str| {
        let _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(fixture(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
            }
        }
    };
    let input = file(folder.path(), "in.jsonl", "{\"text\": \"fox\"}\n".repeat(4500) + "{}\n");
    let out = folder.path().join("out.jsonl");
    let run = |input: &str, more: &[&str]| {
        let mut command = mlxt(["embed", "-i", input, "-o"]);
        command.arg(&out).arg("-m").arg(&model).args(more).output().unwrap()
    };
    copy("bert");
    error_line(1, &run(&input, &[]));
    let partial = folder.path().join("out.jsonl.partial");
    let (left, noted) = (std::fs::read(&partial).unwrap(), rows_done(&folder.path().join("out.jsonl.resume")));
    assert!(noted > Some(0));

    copy("electra");
    let error = error_line(1, &run(&input, &["--resume", "--on-error", "skip"]));
    assert!(error.contains("has changed since the run that was interrupted"), "{error}");
    // A run that cannot work at all leaves what was done alone, with --resume and without.
    std::fs::remove_dir_all(&model).unwrap();
    for more in [&["--resume", "--offline"][..], &["--offline"]] {
        error_line(1, &run(&input, more));
    }
    assert!(std::fs::read(&partial).unwrap() == left);
    assert_eq!(rows_done(&folder.path().join("out.jsonl.resume")), noted);

    // The same bytes read in another way.
    copy("bert");
    let lines = folder.path().join("in.txt");
    std::fs::rename(&input, &lines).unwrap();
    let error = error_line(1, &run(lines.to_str().unwrap(), &["--resume"]));
    assert!(error.contains("the format of the input was jsonl"), "{error}");
}

#[test]
fn files_of_others_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let run = |input: &str, output: &str| {
        let output = folder.path().join(output);
        mlxt(["tokenize", "-m", &model, "-i", input, "-o"]).arg(output).output().unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let input = file(folder.path(), "a.jsonl.partial", "{\"text\": \"fox\"}\n");
    for output in ["a.jsonl.partial", "a.jsonl"] {
        let error = error_line(2, &run(&input, output));
        assert!(error.contains("would be written over by -o"), "{error}");
    }
    let input = file(folder.path(), "in.txt", "fox\n");
    let error = error_line(1, &run(&input, "a.jsonl"));
    assert!(error.contains("a.jsonl.partial is there and may not be ours"), "{error}");
    file(folder.path(), "b.jsonl.resume", "mine");
    assert!(error_line(1, &run(&input, "b.jsonl")).contains("no journal of ours"));
    assert!(!folder.path().join("b.jsonl.partial").exists());
    assert_eq!((read("a.jsonl.partial"), read("b.jsonl.resume")), ("{\"text\": \"fox\"}\n".into(), "mine".into()));
    assert!(run(&input, "c.jsonl").status.success());
}

#[test]
fn a_journal_without_its_results_is_of_no_use_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let input = file(folder.path(), "in.jsonl", "{\"text\": \"fox\"}\n".repeat(4500) + "{}\n");
    let out = folder.path().join("out.jsonl");
    let run = |more: &[&str]| mlxt(["embed", "-m", &model, "-i", &input, "-o"]).arg(&out).args(more).output().unwrap();
    error_line(1, &run(&[]));
    std::fs::remove_file(folder.path().join("out.jsonl.partial")).unwrap();
    let output = run(&["--resume", "--on-error", "skip"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 4500);
    assert!(!folder.path().join("out.jsonl.resume").exists());

    // Results that are shorter than the journal says are damaged.
    error_line(1, &run(&[]));
    std::fs::write(folder.path().join("out.jsonl.partial"), "short").unwrap();
    assert!(error_line(1, &run(&["--resume"])).contains("has 5 bytes, expected"));
}

#[test]
fn two_runs_do_not_write_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = texts(folder.path());
    let out = folder.path().join("x.jsonl");
    let partial = std::fs::File::create(folder.path().join("x.jsonl.partial")).unwrap();
    partial.lock().unwrap();
    let output = mlxt(["embed", "-m", &fixture("bert"), "-i", &input, "-o"]).arg(&out).output().unwrap();
    assert!(error_line(1, &output).contains("is being written by another run"));
}
