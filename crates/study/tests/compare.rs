//! Comparing and joining records, on records that are made up.

#![allow(clippy::unwrap_used)]

mod synthetic;

use mlxt_study::compare::{Comparison, THRESHOLD, Verdict, compare};
use mlxt_study::merge::merge;
use mlxt_study::record::{Outcome, Records};
use synthetic::{Options, PLAIN, records};

const SMALL: Options = Options { operations: false, failures: false, ..PLAIN };

fn of_ours(comparison: &Comparison, verdict: Verdict) -> usize {
    let ours = comparison.changes.iter().filter(|change| change.variant.starts_with("mlxt/"));
    ours.filter(|change| change.verdict == verdict).count()
}

#[test]
fn records_are_the_same_as_themselves() {
    let records = records(SMALL);
    let comparison = compare(&records, &records, THRESHOLD);
    assert!(!comparison.is_worse() && comparison.notes.is_empty(), "{:?}", comparison.notes);
    assert_eq!(comparison.count(Verdict::Same), comparison.changes.len());
}

#[test]
fn other_noise_is_no_change() {
    let comparison = compare(&records(SMALL), &records(Options { seed: 8, ..SMALL }), THRESHOLD);
    let called = comparison.count(Verdict::Slower) + comparison.count(Verdict::Faster);
    assert!(called * 20 < comparison.changes.len(), "{called} of {}", comparison.changes.len());
}

#[test]
fn what_became_slower_is_called_slower_and_the_other_way_round() {
    let (fast, slow) = (records(SMALL), records(Options { factor: 1.3, seed: 8, ..SMALL }));
    let comparison = compare(&fast, &slow, THRESHOLD);
    assert!(comparison.is_worse());
    assert_eq!(of_ours(&comparison, Verdict::Slower), 2 * 52);
    assert_eq!(of_ours(&compare(&slow, &fast, THRESHOLD), Verdict::Faster), 2 * 52);
    // A threshold above the change takes it for none.
    assert_eq!(of_ours(&compare(&fast, &slow, 0.5), Verdict::Same), 2 * 52);
}

#[test]
fn a_cell_that_fails_now_is_worse_and_one_that_is_gone_is_told() {
    let good = records(SMALL);
    let failing = records(Options { failures: true, ..SMALL });
    let comparison = compare(&good, &failing, THRESHOLD);
    assert!(comparison.is_worse());
    assert_eq!(comparison.count(Verdict::Fails), 13 + 1);
    assert_eq!(compare(&failing, &good, THRESHOLD).count(Verdict::Works), 13 + 1);
    let mut fewer = good.clone();
    fewer.rows.retain(|row| row.variant.peer != "torch");
    let comparison = compare(&good, &fewer, THRESHOLD);
    assert_eq!((comparison.count(Verdict::Gone), comparison.is_worse()), (2 * 52, false));
}

#[test]
fn one_sample_proves_nothing() {
    let once = |factor| {
        let mut records = records(Options { factor, ..SMALL });
        records.rows.retain(|row| row.process == 0);
        for row in &mut records.rows {
            if let Outcome::Measured(measured) = &mut row.outcome {
                measured.host_ns = vec![vec![measured.host_ns[0][0]]];
            }
        }
        records
    };
    assert!(!compare(&once(1.0), &once(2.0), THRESHOLD).is_worse());
}

#[test]
fn another_machine_is_compared_and_said() {
    let comparison = compare(&records(SMALL), &records(Options { machine: "Other CPU", ..SMALL }), THRESHOLD);
    assert_eq!(comparison.count(Verdict::Same), comparison.changes.len());
    assert!(
        comparison.notes[0].starts_with("machine: Imaginary CPU, 2 threads; now Other CPU"),
        "{:?}",
        comparison.notes
    );
}

#[test]
fn machines_are_joined_once_and_only_undamaged() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, out, again] = ["a.jsonl", "b.jsonl", "out.jsonl", "again.jsonl"].map(|name| folder.path().join(name));
    let (one, other) = (records(SMALL), records(Options { machine: "Other CPU", ..SMALL }));
    one.write(&a).unwrap();
    other.write(&b).unwrap();
    let merged = merge(&[&a, &b], &out).unwrap();
    assert_eq!(Records::read(&out).unwrap(), merged);
    let text = |path| std::fs::read_to_string(path).unwrap();
    assert_eq!(text(&out), text(&a) + &text(&b));
    assert_eq!((merged.runs.len(), merged.rows.len()), (2, one.rows.len() + other.rows.len()));

    let twice = merge(&[&a, &out], &again).unwrap_err().to_string();
    assert!(twice.contains("run imaginary-cpu-7 is in another of the files too"), "{twice}");
    assert!(merge(&[&a, &b], &out).unwrap_err().to_string().contains("cannot create"));
    std::fs::write(&b, text(&b).replacen("Other", "Ather", 1)).unwrap();
    assert!(merge(&[&a, &b], &again).unwrap_err().to_string().contains("b.jsonl:1: the line was changed"));
    assert!(!again.exists());
}
