//! Records made into answers: for each cell and variant what its samples say, and each failure as a row.
//!
//! Tables, figures and the page read nothing else. `series.rs` names and orders the variants, `timing.rs` is what one of them
//! reached in one cell, `order.rs` puts cells in the order in which they are read, `speedup.rs` compares variants with a baseline,
//! `lead.rs` this program with the fastest other engine.

mod lead;
mod order;
pub mod published;
mod series;
mod speedup;
mod timing;

use serde::Serialize;

pub use lead::Lead;
pub use order::Kind;
pub use series::Series;
pub use speedup::Speedup;
pub use timing::Timing;

use crate::record::{Cell, Length, Measured, Outcome, Records, Row, Run, Work};

/// Everything that can be said of some records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The runs, in the order they were started.
    pub runs: Vec<Run>,
    /// Who measured: a machine and a variant each, in the order of tables.
    pub series: Vec<Series>,
    /// What was measured, in the order of tables.
    pub cells: Vec<Cell>,
    /// By cell, then series: only what was verified.
    pub timings: Vec<Timing>,
    /// By cell, then series.
    pub failures: Vec<Failed>,
}

/// A row without times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failed {
    /// Place in [`Summary::cells`].
    pub cell: usize,
    /// Place in [`Summary::series`].
    pub series: usize,
    /// Which process.
    pub process: usize,
    /// A stage of `study/PROTOCOL.md`.
    pub stage: String,
    /// What happened.
    pub message: String,
}

impl Summary {
    /// Puts records together: per machine, cell, variant and process the last row counts, so that what a resumed run did again
    /// replaces what it found.
    ///
    /// A variant that returned wrong values in any process (stage `verify`) has no times in that cell.
    #[must_use]
    pub fn new(records: &Records) -> Self {
        let series = series::all(records);
        let cells = order::cells(records.rows.iter().map(|row| &row.cell));
        let mut groups = vec![Vec::<&Row>::new(); cells.len() * series.len()];
        for row in &records.rows {
            let Some(run) = records.run_of(row) else { continue }; // Records::read refuses such rows
            let cell = cells.iter().position(|cell| cell.id == row.cell.id);
            let by = series.iter().position(|series| series.made(run, row));
            let (Some(cell), Some(by)) = (cell, by) else { continue };
            let group = &mut groups[cell * series.len() + by];
            group.retain(|other| other.process != row.process);
            group.push(row);
        }
        let (mut timings, mut failures) = (Vec::new(), Vec::new());
        for (at, group) in groups.iter_mut().enumerate() {
            group.sort_by_key(|row| row.process);
            let (cell, by) = (at / series.len(), at % series.len());
            let failed = group.iter().filter_map(|row| failed(cell, by, row));
            let wrong = failed.clone().any(|failure| failure.stage == "verify");
            failures.extend(failed);
            let measured: Vec<&Measured> =
                if wrong { Vec::new() } else { group.iter().filter_map(|row| measured(row)).collect() };
            let limits = series[by].limits(&records.runs);
            timings.extend(Timing::new(cell, by, &cells[cell], &series[by], limits, &measured));
        }
        Self { runs: records.runs.clone(), series, cells, timings, failures }
    }

    /// What `series` reached in `cell`.
    #[must_use]
    pub fn timing(&self, cell: usize, series: usize) -> Option<&Timing> {
        let at = self.timings.binary_search_by_key(&(cell, series), |timing| (timing.cell, timing.series));
        at.ok().map(|at| &self.timings[at])
    }

    /// Why `series` has no times in `cell`, if it was tried.
    #[must_use]
    pub fn failure(&self, cell: usize, series: usize) -> Option<&Failed> {
        let found = self.failures.iter().filter(|failed| (failed.cell, failed.series) == (cell, series));
        found.max_by_key(|failed| failed.stage == "verify")
    }

    /// The cells of a kind, by their places.
    #[must_use]
    pub fn of(&self, kind: &Kind) -> Vec<usize> {
        (0..self.cells.len()).filter(|&cell| kind.holds(&self.cells[cell].work)).collect()
    }

    /// Those of them that somebody measured.
    pub fn measured(&self, kind: &Kind) -> impl Iterator<Item = usize> {
        self.of(kind).into_iter().filter(|&cell| self.timings.iter().any(|timing| timing.cell == cell))
    }

    /// The series that measured one of `cells` at least.
    #[must_use]
    pub fn series_of(&self, cells: &[usize]) -> Vec<usize> {
        let took_part = |series: &usize| cells.iter().any(|&cell| self.timing(cell, *series).is_some());
        (0..self.series.len()).filter(took_part).collect()
    }

    /// The series that were tried on one of `cells` at least, whatever came of it.
    #[must_use]
    pub fn tried(&self, cells: &[usize]) -> Vec<usize> {
        let failed = |series: usize| self.failures.iter().any(|f| f.series == series && cells.contains(&f.cell));
        let measured = self.series_of(cells);
        (0..self.series.len()).filter(|&series| measured.contains(&series) || failed(series)).collect()
    }

    /// The mean over `cells` of the medians of `series`, milliseconds; `None` unless it has all of them.
    ///
    /// A mean over fewer cells than another's would compare different work.
    #[must_use]
    pub fn mean_ms(&self, cells: &[usize], series: usize) -> Option<f64> {
        let medians: Option<Vec<f64>> =
            cells.iter().map(|&cell| self.timing(cell, series).map(|timing| timing.median_ms)).collect();
        medians.filter(|medians| !medians.is_empty()).map(|medians| medians.iter().sum::<f64>() / medians.len() as f64)
    }

    /// The machines that measured, in the order of tables.
    #[must_use]
    pub fn machines(&self) -> Vec<&str> {
        let mut machines: Vec<&str> = self.series.iter().map(|series| series.machine.as_str()).collect();
        machines.dedup();
        machines
    }

    /// `(name, cells)` of each model or operation of a kind that somebody measured.
    #[must_use]
    pub fn subjects(&self, kind: &Kind) -> Vec<(&str, Vec<usize>)> {
        let mut subjects: Vec<(&str, Vec<usize>)> = Vec::new();
        for cell in self.measured(kind) {
            let name = subject(&self.cells[cell]);
            match subjects.iter_mut().find(|(known, _)| *known == name) {
                Some((_, cells)) => cells.push(cell),
                None => subjects.push((name, vec![cell])),
            }
        }
        subjects
    }

    /// The lengths that occur in `cells`, ascending.
    #[must_use]
    pub fn lengths(&self, cells: &[usize]) -> Vec<Length> {
        let mut lengths: Vec<Length> = cells.iter().filter_map(|&cell| length(&self.cells[cell])).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }
}

/// The model or operation of a cell.
#[must_use]
pub fn subject(cell: &Cell) -> &str {
    match &cell.work {
        Work::Model { model, .. } => model,
        Work::Operation { operation, .. } => operation,
    }
}

/// How long a model's texts are.
#[must_use]
pub fn length(cell: &Cell) -> Option<Length> {
    match cell.work {
        Work::Model { length, .. } => Some(length),
        Work::Operation { .. } => None,
    }
}

/// A model's sequences at once.
#[must_use]
pub fn batch(cell: &Cell) -> Option<usize> {
    match cell.work {
        Work::Model { batch, .. } => Some(batch),
        Work::Operation { .. } => None,
    }
}

fn measured(row: &Row) -> Option<&Measured> {
    match &row.outcome {
        Outcome::Measured(measured) => Some(measured),
        Outcome::Failed(_) => None,
    }
}

fn failed(cell: usize, series: usize, row: &Row) -> Option<Failed> {
    match &row.outcome {
        Outcome::Measured(_) => None,
        Outcome::Failed(failure) => Some(Failed {
            cell,
            series,
            process: row.process,
            stage: failure.stage.clone(),
            message: failure.message.clone(),
        }),
    }
}
