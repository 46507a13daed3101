//! Where and with what it was measured.

use super::{Best, Column, Field, Line, Table};
use crate::number::{bytes, significant};
use crate::record::Run;
use crate::summary::Summary;

/// A line for each run.
pub(super) fn runs(summary: &Summary) -> Table {
    let titles = [
        "run",
        "started",
        "plan",
        "version",
        "commit",
        "seed",
        "CPU",
        "processors",
        "threads",
        "memory",
        "GPU",
        "system",
        "governor",
        "load",
        "measured limits",
    ];
    Table {
        id: "environment".into(),
        title: "Machines and runs".into(),
        note: "Limits were measured by this program just before: peak of multiply-adds by type, and reading memory."
            .into(),
        long: false,
        best: Best::None,
        columns: titles.map(Column::text).to_vec(),
        lines: summary.runs.iter().map(|run| line(run_fields(run))).collect(),
    }
}

/// A line for each engine of each run, and each checkpoint.
pub(super) fn peers(summary: &Summary) -> Table {
    let of_run = |run: &Run| -> Vec<Line> {
        let of = |fields: [&str; 4]| line(fields.map(Field::text).to_vec());
        let peers = run.peers.values().map(|peer| of([&run.id, &peer.title, &peer.version, &peer.detail]));
        let weights =
            run.checkpoints.iter().map(|(model, hash)| of([&run.id, model, "weights", &format!("SHA-256 {hash}")]));
        peers.chain(weights).collect()
    };
    Table {
        id: "engines".into(),
        title: "Engines and weights".into(),
        note: "As each engine said of itself; every engine loaded the same files.".into(),
        long: false,
        best: Best::None,
        columns: ["run", "name", "version", "detail"].map(Column::text).to_vec(),
        lines: summary.runs.iter().flat_map(of_run).collect(),
    }
}

fn line(fields: Vec<Field>) -> Line {
    Line { subject: None, series: None, total: false, fields }
}

fn run_fields(run: &Run) -> Vec<Field> {
    let machine = &run.machine;
    let told = |text: Option<&str>| {
        text.filter(|text| !text.is_empty()).map_or_else(|| Field::missing("not told"), Field::text)
    };
    let limits = run.limits.as_ref().map(|limits| {
        let peaks = limits.gflops.iter().map(|(dtype, peak)| format!("{dtype} {} GFLOP/s", significant(*peak)));
        let memory = format!("memory {} GB/s", significant(limits.gigabytes_per_second));
        peaks.chain([memory]).collect::<Vec<_>>().join(", ")
    });
    let gpus = if machine.gpus.is_empty() { "none".into() } else { machine.gpus.join(", ") };
    vec![
        Field::text(&run.id),
        Field::text(&run.started),
        Field::text(&run.plan),
        Field::text(&run.version),
        told(run.commit.as_deref()),
        Field::text(run.seed.to_string()),
        told(Some(&machine.cpu)),
        Field::whole(machine.threads),
        Field::whole(run.threads),
        told(machine.memory.map(bytes).as_deref()),
        Field::text(gpus),
        told(Some(&machine.system)),
        told(machine.governor.as_deref()),
        told(machine.load.map(significant).as_deref()),
        told(limits.as_deref()),
    ]
}
