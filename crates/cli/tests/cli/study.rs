//! The study's commands on records that are committed: what they refuse, and what they leave behind.

use std::path::Path;

use crate::{NO_THREADS, failure, stdout};

/// Records of a real machine: 16 kB.
fn records() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../study/records/2026-11-23-amd-zen5-2-cores");
    folder.join("one-text.jsonl").canonicalize().unwrap().to_str().unwrap().to_owned()
}

/// A limit on the size of files stands for a full disk.
#[test]
#[cfg(unix)]
fn a_merge_that_the_disk_has_no_room_for_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("all.jsonl");
    // Without the signal that a file too large brings, the write fails.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_mlxt"), "study", "merge", &records(), "-o"]).arg(&out);
    let error = crate::error_line(1, &command.output().unwrap());
    assert!(error.contains("cannot write") && error.contains("all.jsonl"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_merge_appears_whole_and_never_over_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("all.jsonl");
    let args = ["study", "merge", &records(), "-o", out.to_str().unwrap()];
    assert!(stdout(&args).contains("rows in"));
    // Of one run: nothing changes its place, and no digit of a number changes.
    assert_eq!(std::fs::read_to_string(&out).unwrap(), std::fs::read_to_string(records()).unwrap());
    #[cfg(unix)]
    {
        // As readable as any new file.
        let mode = |path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        assert_eq!(mode(&out), mode(&plain));
    }
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    std::fs::write(&out, "mine").unwrap();
    assert!(failure(1, &args).contains("cannot create"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn a_threshold_that_would_hide_every_change_is_wrong_usage() {
    let records = records();
    for threshold in ["nan", "inf", "1e309", "-1", "many"] {
        let threshold = format!("--threshold={threshold}");
        let error = failure(2, &["study", "compare", &records, &records, &threshold]);
        assert!(error.contains("--threshold") && error.contains("a finite number, 0 at least"), "{error}");
    }
    assert!(stdout(&["study", "compare", &records, &records, "--threshold=0", "--format=text"]).contains("0 slower"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_closed_standard_output_is_a_success_and_a_full_one_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let [report, merged] = ["report", "all.jsonl"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let records = records();
    let commands: [&[&str]; 3] = [
        &["study", "merge", &records, "-o", &merged],
        &["study", "report", &records, "-o", &report],
        &["study", "setup", "mlxt"],
    ];
    for args in commands {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let error = crate::error_line(1, &crate::mlxt(args).stdout(full).output().unwrap());
        assert!(error.contains("cannot write standard output"), "{args:?}: {error}");
        let _ = std::fs::remove_file(&merged);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = crate::mlxt(args).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

/// A plan of one small operation on the CPU, which takes a moment, and where its run keeps what it makes.
fn small_run(folder: &Path) -> std::process::Command {
    let plan = "about = \"a test\"\nvariants = [\"mlxt/default/cpu/f32\"]\ngolden = [\"mlxt/reference/reference/f32\"]\n\
                processes = 1\ntimeout_seconds = 60\n[operations]\nsets = [\"published\"]\nonly = [\"ReLU\"]\n\
                at_most_values = 5_000_000\nwarmup = 0\niterations = 1\nrounds = 1\nat_least_seconds = 0\n\
                at_most_seconds = 1\n";
    let plan = crate::file(folder, "plan.toml", plan);
    let mut command = crate::mlxt(["study", "run", &plan, "--threads", "1", "-o"]);
    command.arg(folder.join("records.jsonl")).env("MLXT_STUDY_HOME", folder.join("home"));
    command
}

#[test]
#[cfg(target_os = "linux")]
fn limits_on_threads_that_cannot_be_had_are_a_fault_and_the_worker_goes_on() {
    let mut worker = crate::mlxt(["worker"]);
    worker.env(NO_THREADS.0, NO_THREADS.1);
    let output = crate::fed(&mut worker, b"{\"do\": \"probe\", \"threads\": 2}\n{\"do\": \"hello\"}\n");
    let said = String::from_utf8(output.stdout).unwrap();
    let replies: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replies.len(), 2, "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(replies[0]["error"]["stage"], "probe", "{said}");
    assert!(replies[0]["error"]["message"].as_str().unwrap().contains("thread: "), "{said}");
    assert_eq!(replies[1]["ok"]["name"], "mlx-transformers", "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_engine_that_no_thread_can_talk_to_cannot_be_used_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut peers = crate::mlxt(["study", "peers", "--format", "json"]);
    let output = peers.env(NO_THREADS.0, NO_THREADS.1).env("MLXT_STUDY_HOME", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["peer"], "mlxt");
    assert_eq!(found[0]["usable"], false);
    assert!(found[0]["detail"].as_str().unwrap().contains("no thread to talk to it"), "{found}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_standard_error_that_is_full_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut write = crate::mlxt(["study", "report", "-v", &records(), "-o"]);
    write.arg(&report);
    // What it says of each row, and at the end.
    let mut run = small_run(folder.path());
    run.arg("-v");
    for mut command in [write, run] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command.stderr(full).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    assert!(report.join("index.html").exists());
}
