//! The program as its users see it: arguments and files in, output, one line of error and an exit status out.
//!
//! Runs the built binary on the tiny checkpoints in `fixtures/`. No network.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod commands;
mod convert;
mod errors;
mod inputs;
mod outputs;
mod parquet;
mod resume;
mod rows;
#[cfg(unix)]
mod setup;
mod study;
mod task_options;
mod tasks;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A variable for stacks of a size that no system has: no thread can be had, whoever asks.
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "70368744177664");

/// A fixture's folder.
fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    let folder = std::path::absolute(folder).unwrap();
    assert!(folder.is_dir(), "{} is not there", folder.display());
    folder.to_str().unwrap().to_owned()
}

/// The folder of a fixture with heads.
fn task(name: &str) -> String {
    fixture(&format!("tasks/{name}"))
}

/// The program with nothing of the caller's models, and no network.
fn mlxt(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlxt"));
    command
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "/nonexistent/hf")
        .env("XDG_DATA_HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

/// What it says on standard output, having succeeded and been silent otherwise.
fn stdout(args: &[&str]) -> String {
    let output = mlxt(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, as JSON lines.
fn lines(args: &[&str]) -> Vec<Value> {
    stdout(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one line of error of a run that failed with `status` and wrote nothing else.
fn failure(status: i32, args: &[&str]) -> String {
    let output = mlxt(args).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    error_line(status, &output)
}

fn error_line(status: i32, output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.starts_with("mlxt: ") && text.ends_with('\n') && text.lines().count() == 1, "not one line: {text:?}");
    assert!(!text.contains("internal error"), "{text}");
    text
}

/// Runs with `input` as standard input.
fn with_stdin(args: &[&str], input: &[u8]) -> Output {
    fed(&mut mlxt(args), input)
}

/// The same of any command.
fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // A program that has failed does not read on.
    let _ = writer.join().unwrap();
    output
}

/// A file in `folder`, and its path.
fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// An array of numbers.
fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The cases of a fixture's `golden.json` that are one text.
fn golden(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(Path::new(&fixture(name)).join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    golden["cases"].as_array().unwrap().iter().filter(|case| case["pair"].is_null()).cloned().collect()
}
