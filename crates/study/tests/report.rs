//! The report of records that are made up: what is in its files, and what can never be.

#![allow(clippy::unwrap_used)]

mod synthetic;

use std::collections::BTreeMap;
use std::path::Path;

use mlxt_study::figures::{self, Body, Chart};
use mlxt_study::record::{Outcome, Records};
use mlxt_study::summary::{Kind, Summary};
use mlxt_study::tables::{self, Field};
use mlxt_study::{number, report};
use synthetic::{HOSTILE, Options, PLAIN, records};

fn files(records: &Records) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let written = report::write(records, &folder.path().join("new/report")).unwrap();
    let base = folder.path().join("new/report");
    let name = |path: &Path| path.strip_prefix(&base).unwrap().to_str().unwrap().replace('\\', "/");
    written.files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

fn series(summary: &Summary, label: &str) -> usize {
    summary.series.iter().position(|series| series.label == label).unwrap()
}

/// Every key that has a mark with a value, by chart.
fn marked(chart: &Chart) -> Vec<(usize, String)> {
    match &chart.body {
        Body::Rows { groups, .. } => groups
            .iter()
            .flat_map(|group| group.bars.iter().map(move |bar| (bar, group.label.clone())))
            .filter(|(bar, _)| bar.value.is_some())
            .map(|(bar, label)| (bar.key, label))
            .collect(),
        Body::Panels { panels, .. } => panels
            .iter()
            .flat_map(|panel| panel.traces.iter())
            .flat_map(|trace| trace.points.iter().map(|point| (trace.key, point.detail.clone())))
            .collect(),
    }
}

#[test]
fn the_same_records_give_the_same_files_in_any_order_of_measuring() {
    let records = records(PLAIN);
    let first = files(&records);
    let mut shuffled = records.clone();
    mlxt_study::random::Random::new(1, "order").shuffle(&mut shuffled.rows);
    let second = files(&shuffled);
    let changed: Vec<_> =
        first.iter().filter(|(name, bytes)| second.get(*name) != Some(bytes)).map(|(n, _)| n).collect();
    assert!(changed.is_empty() && first.len() == second.len(), "{changed:?}");
    for name in ["index.html", "report.md", "report.json", "failures.csv", "measurements.csv", "models-characters.csv"]
    {
        assert!(first.contains_key(name), "{name} is not among {:?}", first.keys());
    }
    let figures =
        ["operations-published", "models", "length", "batch", "speedup-models", "roofline", "error", "ragged"];
    for figure in figures {
        assert!(first[&format!("figures/{figure}.svg")].starts_with(b"<svg"), "{figure}");
        assert!(first[&format!("figures/{figure}.png")].starts_with(b"\x89PNG"), "{figure}");
    }
}

#[test]
fn no_file_holds_a_hole_or_what_a_record_says_as_markup() {
    let all = files(&records(PLAIN));
    // All but the PNG files are text.
    for (name, text) in all.iter().filter_map(|(name, bytes)| Some((name, std::str::from_utf8(bytes).ok()?))) {
        // Both say of the public code that its errors became NaN.
        assert!(!text.contains("NaN") || name == "index.html" || name == "report.md", "{name}");
        assert!(!text.contains(",inf") && !text.contains("| inf"), "{name}");
        assert!(!text.contains(HOSTILE), "{name}");
    }
    let page = std::str::from_utf8(&all["index.html"]).unwrap();
    assert_eq!(page.matches("</script").count(), 2, "a text of a record ends a script");
    assert!(
        !page.contains("http://")
            || page.matches("http://").count() == page.matches("http://www.w3.org/2000/svg").count()
    );
    assert!(!page.contains("https://") && !page.contains("src=\"") && !page.contains("@import"));
    let json: serde_json::Value = serde_json::from_slice(&all["report.json"]).unwrap();
    let messages: Vec<_> =
        json["failures"].as_array().unwrap().iter().map(|f| f["message"].as_str().unwrap()).collect();
    assert!(messages.contains(&HOSTILE));
}

#[test]
fn what_is_not_verified_is_in_no_figure_and_its_failure_in_the_tables() {
    let mut records = records(PLAIN);
    // One wrong process is enough: its right siblings do not count either.
    records.rows.retain(|row| row.variant.dtype == "f32");
    for row in &mut records.rows {
        if row.variant.mode == "compiled" && row.process == 2 {
            let message = "wrong".into();
            row.outcome = Outcome::Failed(mlxt_study::record::Failure { stage: "verify".into(), message });
        }
    }
    let summary = Summary::new(&records);
    let wrong = series(&summary, "PyTorch compiled");
    assert!(summary.timings.iter().all(|timing| timing.series != wrong));
    for chart in figures::all(&summary).unwrap() {
        let of = |key: usize| chart.keys[key].series == Some(wrong);
        assert!(!marked(&chart).iter().any(|(key, _)| of(*key)), "{}", chart.id);
    }
    let tables = tables::all(&summary).unwrap();
    let models = tables.iter().find(|table| table.id == "models-characters").unwrap();
    let column = models.columns.iter().position(|column| column.series == Some(wrong)).unwrap();
    for line in &models.lines {
        assert!(matches!(&line.fields[column], Field::Missing { why, .. } if why.starts_with("failed: ")));
    }
}

#[test]
fn ours_is_compared_with_the_fastest_other_of_its_kind() {
    let summary = Summary::new(&records(Options { failures: false, ..PLAIN }));
    let (_, cells) = summary.subjects(&Kind::Models).into_iter().find(|(model, _)| *model == "bert-base").unwrap();
    let median = |cell, series| summary.timing(cell, series).map(|timing| timing.median_ms);
    assert_eq!(summary.ours().count(), 2);
    for ours in summary.ours() {
        let dtype = &summary.series[ours].variant.dtype;
        let rival = |&other: &usize| {
            let variant = &summary.series[other].variant;
            variant.peer != "mlxt" && variant.dtype == *dtype
        };
        let lead = summary.lead(ours, &cells).unwrap();
        assert_eq!(lead.against.len(), cells.len());
        let mut logs = 0.0;
        for &(cell, other) in &lead.against {
            assert!(rival(&other));
            let rivals = (0..summary.series.len()).filter(rival);
            let best = rivals.filter_map(|other| median(cell, other)).fold(f64::INFINITY, f64::min);
            assert_eq!(median(cell, other), Some(best));
            logs += (best / median(cell, ours).unwrap()).ln();
        }
        assert!((lead.times.ln() - logs / cells.len() as f64).abs() < 1e-9);
        assert!(lead.interval.unwrap().contains(lead.times));
    }
    let table = tables::all(&summary).unwrap().into_iter().find(|table| table.id == "leads").unwrap();
    let of_model: Vec<_> = table.lines.iter().filter(|line| line.subject.as_deref() == Some("bert-base")).collect();
    // Of each of the two a line for each cell, and one for all.
    assert_eq!(of_model.len(), 2 * (cells.len() + 1));
    assert_eq!(of_model.iter().filter(|line| line.total).count(), 2);
}

#[test]
fn a_mean_over_fewer_cells_is_not_drawn_and_says_so() {
    let summary = Summary::new(&records(PLAIN));
    let compiled = series(&summary, "PyTorch compiled");
    let (_, cells) = summary.subjects(&Kind::Characters).into_iter().find(|(model, _)| *model == "bert-large").unwrap();
    assert_eq!(summary.mean_ms(&cells, compiled), None);
    let chart = figures::all(&summary).unwrap().into_iter().find(|chart| chart.id == "models").unwrap();
    let Body::Rows { groups, .. } = &chart.body else { panic!("models are rows") };
    let bars = &groups.iter().find(|group| group.label == "bert-large").unwrap().bars;
    let bar = bars.iter().find(|bar| chart.keys[bar.key].series == Some(compiled)).unwrap();
    assert_eq!((bar.value, bar.text.as_str()), (None, "11 of 12 cells"));
}

#[test]
fn the_last_row_of_a_process_counts() {
    let mut records = records(Options { operations: false, failures: false, ..PLAIN });
    let place = records.rows.iter().position(|row| row.variant.peer == "mlxt" && row.variant.dtype == "f32").unwrap();
    let row = records.rows[place].clone();
    let failure = mlxt_study::record::Failure { stage: "crash".into(), message: "killed".into() };
    records.rows.insert(0, mlxt_study::record::Row { outcome: Outcome::Failed(failure), ..row });
    let summary = Summary::new(&records);
    assert!(summary.failures.is_empty());
    assert!(summary.timings.iter().all(|timing| timing.processes == 3 && timing.count == 36));
}

#[test]
fn machines_stay_apart() {
    let (mut both, other) = (records(PLAIN), records(Options { machine: "Other CPU", factor: 0.5, ..PLAIN }));
    both.runs.extend(other.runs);
    both.rows.extend(other.rows);
    let summary = Summary::new(&both);
    assert_eq!(summary.machines(), ["Imaginary CPU, 2 threads", "Other CPU, 2 threads"]);
    let own = series(&summary, "mlx-transformers, Imaginary CPU, 2 threads");
    let other = series(&summary, "mlx-transformers, Other CPU, 2 threads");
    let cell = summary.of(&Kind::Ragged)[0];
    let (a, b) = (summary.timing(cell, own).unwrap(), summary.timing(cell, other).unwrap());
    assert!((1.8..2.2).contains(&(a.median_ms / b.median_ms)));
    // Each machine has a baseline of its own.
    let baseline = |machine| summary.baseline(&Kind::Models, machine).unwrap();
    assert_eq!(summary.series[baseline("Other CPU, 2 threads")].label, "PyTorch eager, Other CPU, 2 threads");
    assert!(!files(&both).is_empty());
}

#[test]
fn numbers_follow_from_the_samples() {
    let records = records(PLAIN);
    let summary = Summary::new(&records);
    let ours = series(&summary, "mlx-transformers");
    let cell = summary.cells.iter().position(|cell| cell.id == "bert-base/100c/b16").unwrap();
    let timing = summary.timing(cell, ours).unwrap();
    let mut samples: Vec<u64> = records
        .rows
        .iter()
        .filter(|row| row.cell.id == "bert-base/100c/b16" && row.variant == summary.series[ours].variant)
        .filter_map(|row| match &row.outcome {
            Outcome::Measured(measured) => Some(measured.host_ns.concat()),
            Outcome::Failed(_) => None,
        })
        .flatten()
        .collect();
    samples.sort_unstable();
    let median = (samples[17] + samples[18]) as f64 / 2e6;
    assert!((timing.median_ms - median).abs() < 1e-9 && samples.len() == 36);
    let rate = timing.sequences_per_second.unwrap();
    assert!((rate - 16e3 / median).abs() < 1e-6);
    // The least time is its products at 334 GFLOP/s here, which take longer than its bytes at 25 GB/s.
    let least = summary.cells[cell].flops as f64 / 334e6;
    assert!((timing.share_of_limit.unwrap() - least / median).abs() < 1e-9);
    assert_eq!(number::significant(timing.median_ms), number::significant(median));
}

#[test]
fn nothing_at_all_makes_a_report_too() {
    let mut records = records(PLAIN);
    records.rows.clear();
    let all = files(&records);
    assert!(all.contains_key("index.html") && !all.keys().any(|name| name.starts_with("figures/")));
    assert!(!files(&Records::default()).is_empty());
}
