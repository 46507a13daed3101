//! A series: one variant on one machine, with a name short enough for a column and a legend.

use serde::Serialize;

use crate::number::count;
use crate::record::{Limits, Records, Row, Run, Variant};

/// Who measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The machine, as it is written.
    pub machine: String,
    /// The variant.
    pub variant: Variant,
    /// A name that no other series of the report has: the peer's title, and of the rest only what tells it from others.
    pub label: String,
}

impl Series {
    /// Whether it is this series that a row is of.
    pub(super) fn made(&self, run: &Run, row: &Row) -> bool {
        self.variant == row.variant && self.machine == machine(run)
    }

    /// The limits measured last on its machine; on the CPU, where they hold.
    pub(super) fn limits<'a>(&self, runs: &'a [Run]) -> Option<&'a Limits> {
        let of_machine = runs.iter().filter(|run| machine(run) == self.machine);
        let limits = of_machine.filter_map(|run| run.limits.as_ref()).next_back();
        limits.filter(|_| self.on_cpu())
    }

    /// Whether it runs on the CPU: on `cpu` or `mlx:cpu`.
    pub(super) fn on_cpu(&self) -> bool {
        self.variant.device.split(':').any(|part| part == "cpu")
    }
}

/// A machine's name. The same with another number of threads is another machine: its times are not to be joined.
fn machine(run: &Run) -> String {
    let name = if run.machine.name.is_empty() { "unnamed machine" } else { &run.machine.name };
    format!("{name}, {}", count(run.threads, "thread"))
}

/// The series of all rows: by machine, full precision first, then by name.
pub(super) fn all(records: &Records) -> Vec<Series> {
    let mut found: Vec<(String, Variant, String)> = Vec::new();
    for row in &records.rows {
        let Some(run) = records.run_of(row) else { continue }; // Records::read refuses such rows
        let machine = machine(run);
        if !found.iter().any(|(known, variant, _)| *known == machine && *variant == row.variant) {
            // Known by `peer/mode/device`, for each way in which it runs.
            let mut known = run.peers.iter().filter(|(way, _)| way.split('/').next() == Some(&row.variant.peer));
            let title = known.find_map(|(_, peer)| Some(peer.title.as_str()).filter(|title| !title.is_empty()));
            found.push((machine, row.variant.clone(), title.unwrap_or(&row.variant.peer).to_owned()));
        }
    }
    found.sort_by_key(|(machine, variant, _)| (machine.clone(), variant.dtype != "f32", variant.clone()));
    let labels: Vec<String> = found.iter().map(|series| label(series, &found)).collect();
    let named = found.into_iter().zip(labels);
    named.map(|((machine, variant, _), label)| Series { machine, variant, label }).collect()
}

fn label((machine, variant, title): &(String, Variant, String), all: &[(String, Variant, String)]) -> String {
    let mut parts = vec![title.as_str()];
    let same_peer = || all.iter().map(|(_, other, _)| other).filter(|other| other.peer == variant.peer);
    if same_peer().any(|other| other.mode != variant.mode) {
        parts.push(&variant.mode);
    }
    if all.iter().any(|(_, other, _)| other.device != variant.device) {
        parts.push(&variant.device);
    }
    if variant.dtype != "f32" {
        parts.push(&variant.dtype);
    }
    let mut label = parts.join(" ");
    if all.iter().any(|(_, other, other_title)| other_title == title && other.peer != variant.peer) {
        label = format!("{label} ({})", variant.peer);
    }
    if all.iter().any(|(other, _, _)| other != machine) {
        label = format!("{label}, {machine}");
    }
    label
}
