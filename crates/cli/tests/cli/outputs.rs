//! Every format read back, and files that appear whole or not at all.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::{error_line, failure, file, fixture, lines, mlxt, numbers, stdout};

/// Shape and values of a NumPy file, read as NumPy's format description says.
fn npy(bytes: &[u8]) -> (usize, usize, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!((10 + length) % 64, 0);
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.ends_with('\n'));
    let shape = header.split_once("{'descr': '<f4', 'fortran_order': False, 'shape': (").unwrap().1;
    let (shape, rest) = shape.split_once(')').unwrap();
    assert!(rest.trim() == ", }", "{rest:?}");
    let (rows, cols) = shape.split_once(", ").unwrap();
    let values: Vec<f32> = bytes[10 + length..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (rows, cols) = (rows.parse().unwrap(), cols.parse().unwrap());
    assert_eq!(values.len(), rows * cols);
    (rows, cols, values)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_format_of_embed_holds_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    let args = ["embed", "-m", &model, "a fox", "the \"quick\", fox", ""];
    let expected = lines(&args);
    let with = |format: &str| mlxt(args).args(["--format", format]).output().unwrap().stdout;

    let json: Value = serde_json::from_slice(&with("json")).unwrap();
    assert_eq!(json, Value::Array(expected.clone()));

    let csv = with("csv");
    let mut reader = csv::Reader::from_reader(&csv[..]);
    assert_eq!(reader.headers().unwrap().iter().take(3).collect::<Vec<_>>(), ["index", "tokens", "e0"]);
    for (record, object) in reader.records().zip(&expected) {
        let record = record.unwrap();
        assert_eq!(record[0].parse::<u64>().unwrap(), object["index"]);
        assert_eq!(record[1].parse::<u64>().unwrap(), object["tokens"]);
        let values: Vec<f32> = record.iter().skip(2).map(|v| v.parse().unwrap()).collect();
        assert_eq!(values, numbers(&object["embedding"]));
    }

    let all: Vec<f32> = expected.iter().flat_map(|object| numbers(&object["embedding"])).collect();
    let piped = npy(&with("npy"));
    assert_eq!(piped, (3, all.len() / 3, all));
    let path = folder.path().join("x.npy");
    assert!(mlxt(args).arg("-o").arg(&path).output().unwrap().stdout.is_empty());
    assert_eq!(npy(&std::fs::read(&path).unwrap()), piped);

    let text = String::from_utf8(with("text")).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(text.lines().nth(1).unwrap().starts_with("    0       "), "{text}");
}

#[test]
fn every_format_of_features_and_tokenize() {
    let model = fixture("bert");
    let expected = &lines(&["features", "-m", &model, "a, fox"])[0];
    let data = numbers(&expected["data"]);
    let run = |args: &[&str]| mlxt(args).output().unwrap().stdout;

    let (rows, cols, values) = npy(&run(&["features", "-m", &model, "a, fox", "--format", "npy"]));
    assert_eq!(expected["shape"], serde_json::json!([rows, cols]));
    assert_eq!(values, data);
    let csv = run(&["features", "-m", &model, "a, fox", "--format", "csv"]);
    let mut reader = csv::Reader::from_reader(&csv[..]);
    assert_eq!(reader.headers().unwrap().iter().take(3).collect::<Vec<_>>(), ["index", "token", "f0"]);
    let mut found = Vec::new();
    for (record, token) in reader.records().zip(expected["tokens"].as_array().unwrap()) {
        let record = record.unwrap();
        assert_eq!((&record[0], &record[1]), ("0", token.as_str().unwrap()));
        found.extend(record.iter().skip(2).map(|v| v.parse::<f32>().unwrap()));
    }
    assert_eq!(found, data);
    let text = stdout(&["features", "-m", &model, "a, fox", "--pooler", "--format", "text"]);
    assert_eq!(text.lines().count(), 1 + rows + 1);

    let expected = &lines(&["tokenize", "-m", &model, "a, \"fox\""])[0];
    let csv = run(&["tokenize", "-m", &model, "a, \"fox\"", "--format", "csv"]);
    let record = csv::Reader::from_reader(&csv[..]).records().next().unwrap().unwrap();
    let list = |i: usize| serde_json::from_str::<Value>(&record[i]).unwrap();
    assert_eq!((list(1), list(2)), (expected["ids"].clone(), expected["tokens"].clone()));
}

#[test]
fn no_text_is_a_whole_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let empty = file(folder.path(), "empty.txt", "");
    let model = fixture("bert");
    let with = |format: &str| mlxt(["embed", "-m", &model, "-i", &empty, "--format", format]).output().unwrap().stdout;
    assert_eq!(with("json"), b"[]\n");
    assert_eq!(with("jsonl"), b"");
    assert_eq!(String::from_utf8(with("csv")).unwrap().lines().count(), 1);
    assert_eq!(npy(&with("npy")).0, 0);
}

#[test]
fn the_extension_of_the_file_chooses_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("bert");
    for (name, start) in
        [("a.json", "[\n{"), ("a.jsonl", "{\"index\""), ("a.csv", "index,"), ("a.txt", "index "), ("a", "{")]
    {
        let path = folder.path().join(name);
        let output = mlxt(["embed", "-m", &model, "fox", "-o"]).arg(&path).output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        assert!(std::fs::read_to_string(path).unwrap().starts_with(start), "{name}");
    }
}

#[test]
fn a_failed_run_keeps_the_old_file_and_what_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let mut text = "{\"text\": \"fox\"}\n".repeat(6000);
    text.push_str("{\"text\": null}\n");
    let input = file(folder.path(), "in.jsonl", text);
    let model = fixture("bert");
    let run = || mlxt(["embed", "-m", &model, "-i", &input, "-o"]).arg(&out).output().unwrap();
    assert!(error_line(1, &run()).contains("\"text\" is null in line 6001 of "));
    let kept = ["in.jsonl", "out.jsonl.partial", "out.jsonl.resume"];
    assert_eq!(names(folder.path()), kept);
    std::fs::write(&out, "old").unwrap();
    error_line(1, &run());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
    assert_eq!(names(folder.path()), ["in.jsonl", "out.jsonl", "out.jsonl.partial", "out.jsonl.resume"]);
    // Nothing to go on with: nothing is left.
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let input = file(folder.path(), "in.jsonl", "{}\n");
    error_line(1, &mlxt(["embed", "-m", &model, "-i", &input, "-o"]).arg(&out).output().unwrap());
    assert_eq!(names(folder.path()), ["in.jsonl"]);
}

#[test]
fn an_old_file_is_replaced_through_a_link_and_keeps_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real.csv");
    std::fs::write(&real, "old").unwrap();
    let out = folder.path().join("out.csv");
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &out).unwrap();
    }
    let output = mlxt(["tokenize", "-m", &fixture("bert"), "fox", "-o"]).arg(&out).output().unwrap();
    assert!(output.status.success());
    assert!(std::fs::read_to_string(&out).unwrap().starts_with("index,ids,tokens\n"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert!(out.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn a_folder_that_is_not_there_is_named_before_any_work() {
    let error = failure(1, &["embed", "-m", "/nonexistent/model", "a", "-o", "/nonexistent/folder/x.json"]);
    assert!(error.contains("cannot write /nonexistent/folder/x.json: "), "{error}");
}

#[test]
fn a_dash_is_standard_output() {
    let found = stdout(&["tokenize", "-m", &fixture("bert"), "fox", "-o", "-"]);
    assert_eq!(found, stdout(&["tokenize", "-m", &fixture("bert"), "fox"]));
    assert!(!Path::new("-").exists());
}

#[cfg(unix)]
#[test]
fn a_signal_takes_along_what_nobody_could_go_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = mlxt(["tokenize", "-q", "-m", &fixture("bert"), "-i", "-", "-o"]);
    command.arg(folder.path().join("x.jsonl")).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It waits for texts. `wait` alone would close its input, and it might be at its end before it hears of the signal.
    let input = child.stdin.take();
    while names(folder.path()).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_run_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(folder.path(), "many.txt", "fox\n".repeat(20_000));
    let mut child = mlxt(["embed", "-m", &fixture("bert"), "-i", &input])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"index\":0,"), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let model = fixture("bert");
    for format in ["jsonl", "json", "csv", "npy", "text"] {
        let error = failure(1, &["embed", "-m", &model, "a", "-o", "/dev/full", "--format", format]);
        assert!(error.contains("cannot write /dev/full: No space left"), "{format}: {error}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = mlxt(["embed", "-m", &model, "a", "--format", format]).stdout(full).output().unwrap();
        let error = error_line(1, &output);
        assert!(error.contains("cannot write standard output: No space left"), "{format}: {error}");
    }
    assert!(!std::fs::metadata("/dev/full").unwrap().is_file());
    for help in ["--help", "--version"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = mlxt([help]).stdout(full).output().unwrap();
        assert!(error_line(1, &output).contains("cannot write standard output: No space left"), "{help}");
    }
    assert!(mlxt(["embed", "-m", &model, "a", "-o", "/dev/null"]).output().unwrap().status.success());
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}
