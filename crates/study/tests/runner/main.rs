//! The runner with workers that misbehave: whatever they do is a row with a stage and a message, and the rest goes on.
//!
//! The workers are `fake_worker.py`: their mode says what they do and their clock is a script, so that what is tested is
//! the order of things and never a time.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlxt_study::Result;
use mlxt_study::peers::{Home, Peers};
use mlxt_study::plan::Plan;
use mlxt_study::record::{Measured, Outcome, Records, Row};
use mlxt_study::runner::{Event, Study, Summary, run};
use tempfile::TempDir;

const MISBEHAVIOUR: [(&str, &str, &str); 13] = [
    ("wrong", "verify", "off by up to 1.0e-1"),
    ("nan", "verify", "NaN"),
    ("cut", "output", "bytes"),
    ("other-shape", "verify", "should be f32"),
    ("unloadable", "load", "weights of another model"),
    ("crash", "crash", "status 7; it said: the end is near"),
    ("killed", "crash", "signal 9"),
    ("hang", "timeout", "no reply in 2 s"),
    ("garbage", "protocol", "progress: 50 %"),
    ("error", "memory", "out of memory"),
    ("no-time", "protocol", "took no time"),
    ("short", "protocol", "iterations"),
    // As if launching were computing.
    ("no-wait", "implausible", "1 ns for what takes this machine"),
];

/// A plan, peers and a place for everything.
struct Scene {
    folder: TempDir,
    plan: Plan,
    peers: Peers,
    stop: Arc<AtomicBool>,
}

impl Scene {
    fn new(modes: &[&str], processes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mode = |mode: &&str| {
            format!(
                "[[peer.mode]]\nid = {mode:?}\ndtypes = [\"f32\"]\nmodels = true\nenv = {{ FAKE_LOG = '{}' }}\n",
                log.display()
            )
        };
        let modes: String = modes.iter().map(mode).collect();
        let peers =
            format!("[[peer]]\nid = \"fake\"\ntitle = \"Fake\"\nworker = \"mlxt\"\ndevices = [\"cpu\"]\n{modes}");
        std::fs::write(folder.path().join("peers.toml"), peers).unwrap();
        let plan = format!(
            "about = \"a test\"\nvariants = [\"fake/*/*/*\"]\ngolden = [\"fake/good/cpu/f32\"]\nprocesses = {processes}\n\
             timeout_seconds = 2\n[models]\nnames = [\"minilm-l6\"]\ntokens = [4, 8]\nbatch = [1, 2]\nwarmup = 2\n\
             iterations = 6\nrounds = 3\nat_least_seconds = 0\nat_most_seconds = 1\n"
        );
        std::fs::write(folder.path().join("test.toml"), plan).unwrap();
        let plan = Plan::open(folder.path().join("test.toml").to_str().unwrap()).unwrap();
        let peers = Peers::open(&folder.path().join("peers.toml")).unwrap();
        // Stands in for a checkpoint: these workers read none.
        std::fs::create_dir(folder.path().join("weights")).unwrap();
        std::fs::write(folder.path().join("weights/model.safetensors"), "weights").unwrap();
        Self { folder, plan, peers, stop: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run_hearing(&self, hear: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner/fake_worker.py");
        let home = Home { folder: self.path("home"), program };
        let study = Study {
            plan: &self.plan,
            peers: &self.peers,
            home: &home,
            records: self.path("records.jsonl"),
            checkpoints: BTreeMap::from([("minilm-l6".into(), self.path("weights"))]),
            seed: 3,
            threads: 1,
            version: ("test".into(), None),
            stop: Arc::clone(&self.stop),
        };
        run(&study, hear)
    }

    fn run(&self) -> Summary {
        self.run_hearing(&mut |_| {}).unwrap()
    }

    fn records(&self) -> Records {
        Records::read(&self.path("records.jsonl")).unwrap()
    }

    /// What the workers were asked: process, mode and request.
    fn log(&self) -> Vec<[String; 3]> {
        let text = std::fs::read_to_string(self.path("log")).unwrap();
        let line = |line: &str| {
            let mut parts = line.splitn(3, ' ').map(str::to_owned);
            std::array::from_fn(|_| parts.next().unwrap())
        };
        text.lines().map(line).collect()
    }
}

fn measured(row: &Row) -> &Measured {
    match &row.outcome {
        Outcome::Measured(measured) => measured,
        Outcome::Failed(failed) => panic!("{}: {failed:?}", row.variant),
    }
}

#[test]
fn whatever_a_worker_does_is_a_row_and_the_rest_goes_on() {
    let modes: Vec<&str> = ["good"].into_iter().chain(MISBEHAVIOUR.iter().map(|(mode, ..)| *mode)).collect();
    let scene = Scene::new(&modes, 1);
    let summary = scene.run();
    assert_eq!(summary, Summary { measured: 4, failed: 4 * MISBEHAVIOUR.len(), stopped: false });
    let records = scene.records();
    for (mode, stage, message) in MISBEHAVIOUR {
        let rows: Vec<&Row> = records.rows.iter().filter(|row| row.variant.mode == mode).collect();
        assert_eq!(rows.len(), 4, "{mode}");
        let Outcome::Failed(first) = &rows[0].outcome else { panic!("{mode} was measured") };
        assert!(first.stage == stage && first.message.contains(message), "{mode}: {first:?}");
        assert!(rows.iter().all(|row| matches!(row.outcome, Outcome::Failed(_))), "{mode}");
    }
    let series = mlxt_study::summary::Summary::new(&records).series;
    assert!(series.iter().all(|series| series.label.starts_with("Fake ")), "titles, not ids: {series:?}");
    // A worker that ends is started again, but not for ever.
    let starts = scene.log().iter().filter(|[_, mode, what]| mode == "crash" && what == "load").count();
    assert_eq!(starts, 3);
}

#[test]
fn every_sample_is_kept_and_rounds_take_turns_in_changing_order() {
    let scene = Scene::new(&["good", "a", "b", "c"], 2);
    assert_eq!(scene.run(), Summary { measured: 2 * 4 * 4, failed: 0, stopped: false });
    let records = scene.records();
    for row in &records.rows {
        let Measured { host_ns, check, load_seconds, detail, .. } = measured(row);
        assert_eq!(host_ns.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!((check.max_abs, check.min_cosine, *load_seconds), (0.0, 1.0, Some(0.5)));
        assert_eq!((check.golden.as_str(), detail.as_str()), ("fake/good/cpu/f32", "scripted"));
        // The fake clock goes up by one a request: later rounds were asked later.
        assert!(host_ns.windows(2).all(|pair| pair[0] < pair[1]), "{host_ns:?}");
    }
    let keys: BTreeSet<_> = records.rows.iter().map(|row| (&row.cell.id, &row.variant.mode, row.process)).collect();
    assert_eq!(keys.len(), records.rows.len());
    // In each round every variant has one turn, and the order is not always the same.
    let log = scene.log();
    let timed: Vec<&str> = log.iter().filter(|[.., what]| what == "run 2").map(|[_, mode, _]| mode.as_str()).collect();
    assert_eq!(timed.len(), 2 * 4 * 4 * 3);
    let mut orders = BTreeSet::new();
    for round in timed.chunks(4) {
        assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 4, "{round:?}");
        orders.insert(round);
    }
    assert!(orders.len() > 5, "{orders:?}");
    // Each process number has processes of its own.
    let processes: BTreeSet<&String> =
        log.iter().filter(|l| l[1] == "a" && l[2] == "load").map(|[id, ..]| id).collect();
    assert_eq!(processes.len(), 2);
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let scene = Scene::new(&["good", "a"], 2);
    let mut rows = 0;
    let stop = Arc::clone(&scene.stop);
    let summary = scene.run_hearing(&mut |event| {
        if matches!(event, Event::Row(_)) {
            rows += 1;
            stop.fetch_or(rows == 5, Ordering::Relaxed);
        }
    });
    assert!(summary.unwrap().stopped);
    let first = scene.records().rows;
    assert!(first.len() >= 5 && first.len() < 16, "{}", first.len());
    // Killed in the middle of a line.
    let path = scene.path("records.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"kind\":\"row\",\"run\":\"");
    std::fs::write(&path, text).unwrap();
    scene.stop.store(false, Ordering::Relaxed);
    assert!(!scene.run().stopped);
    let all = scene.records();
    assert_eq!((&all.rows[..first.len()], all.rows.len(), all.runs.len()), (&first[..], 16, 2));
    // Nothing is left to do, and no run is noted.
    assert_eq!(scene.run(), Summary::default());
    assert_eq!(scene.records().runs.len(), 2);
}

#[test]
fn what_would_take_too_long_is_left_out_and_said() {
    let mut scene = Scene::new(&["good"], 1);
    // The scripted clock counts nanoseconds: only the first cell, of which nothing is known yet, is within this.
    scene.plan.models.as_mut().unwrap().effort.at_most_seconds_each = Some(1e-12);
    assert_eq!(scene.run(), Summary { measured: 1, failed: 3, stopped: false });
    let rows = scene.records().rows;
    let smallest = rows.iter().map(|row| row.cell.flops).min().unwrap();
    for row in &rows {
        match &row.outcome {
            Outcome::Measured(_) => assert_eq!(row.cell.flops, smallest),
            Outcome::Failed(failed) => assert_eq!(failed.stage, "slow", "{failed:?}"),
        }
    }
}

#[test]
fn a_run_that_goes_on_knows_what_would_take_too_long() {
    let mut scene = Scene::new(&["good"], 1);
    let stop = Arc::clone(&scene.stop);
    let summary = scene.run_hearing(&mut |event| {
        stop.fetch_or(matches!(event, Event::Row(_)), Ordering::Relaxed);
    });
    assert!(summary.unwrap().stopped);
    assert_eq!(scene.records().rows.len(), 1);
    scene.stop.store(false, Ordering::Relaxed);
    scene.plan.models.as_mut().unwrap().effort.at_most_seconds_each = Some(1e-12);
    assert_eq!(scene.run(), Summary { measured: 0, failed: 3, stopped: false });
}

#[test]
fn records_of_another_plan_are_not_added_to() {
    let scene = Scene::new(&["good"], 1);
    scene.run();
    let other = Scene { plan: Plan { name: "other".into(), ..scene.plan.clone() }, ..scene };
    let error = other.run_hearing(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("it holds plan test"), "{error}");
}

#[test]
fn more_rows_than_can_be_counted_are_refused() {
    let mut scene = Scene::new(&["good"], 1);
    scene.plan.processes = usize::MAX;
    let error = scene.run_hearing(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("more rows than can be counted"), "{error}");
}

#[test]
fn what_cannot_run_here_is_told_and_left_out() {
    let scene = Scene::new(&["good", "absent"], 1);
    let mut absent = Vec::new();
    let summary = scene.run_hearing(&mut |event| {
        if let Event::Absent { variant, reason } = event {
            absent.push(format!("{variant}: {reason}"));
        }
    });
    assert_eq!(summary.unwrap().measured, 4);
    assert_eq!(absent, ["fake/absent/cpu/f32: load: no such device"]);
    let scene = Scene::new(&["a"], 1);
    let error = scene.run_hearing(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("no golden engine: none of fake/good/cpu/f32"), "{error}");
    assert!(!scene.path("records.jsonl").exists(), "a file of a run that could not begin");
}

/// As that of `openvino` does.
#[test]
#[cfg(target_os = "linux")]
fn what_a_worker_started_ends_with_it() {
    let scene = Scene::new(&["good", "parent"], 1);
    assert_eq!(scene.run().measured, 8);
    let log = scene.log();
    let children: Vec<&str> = log.iter().filter_map(|[.., what]| what.strip_prefix("child ")).collect();
    assert!(!children.is_empty());
    let lives = |child: &&str| {
        // `PID (NAME) STATE ..`; whoever inherits it may be slow to take note that it is dead.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    assert_eq!(children.iter().find(|child| lives(child)), None);
}

#[test]
fn nothing_is_left_of_scratch_files() {
    let scene = Scene::new(&["good", "crash"], 1);
    scene.run();
    let left: Vec<_> = std::fs::read_dir(scene.path("home")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
