//! How quickly each engine computes each model, going by what was measured already: what would take too long is known
//! before it is begun, in a run that goes on where another stopped too.

use std::collections::HashMap;

use crate::plan::Effort;
use crate::record::{Cell, Failure, Outcome, Row, Variant, Work};
use crate::worker::failure;

/// Seconds for each FLOP in the cell where an engine was quickest, by model and engine.
#[derive(Default)]
pub(super) struct Paces(HashMap<(String, Variant), f64>);

impl Paces {
    /// What records tell.
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut paces = Self::default();
        for row in rows {
            let Outcome::Measured(measured) = &row.outcome else { continue };
            if let Some(&quickest) = measured.host_ns.iter().flatten().min() {
                paces.note(&row.cell, &row.variant, quickest as f64 / 1e9);
            }
        }
        paces
    }

    /// Notes what an iteration took. Operations are not alike: nothing follows from one for another.
    pub(super) fn note(&mut self, cell: &Cell, variant: &Variant, seconds: f64) {
        let Work::Model { model, .. } = &cell.work else { return };
        if cell.flops == 0 {
            return;
        }
        let pace = seconds / cell.flops as f64;
        let known = self.0.entry((model.clone(), variant.clone())).or_insert(pace);
        *known = known.min(pace);
    }

    /// Refuses a cell of which one iteration would take longer than allowed.
    pub(super) fn in_time(&self, cell: &Cell, variant: &Variant, effort: Effort) -> Result<(), Failure> {
        let (Work::Model { model, .. }, Some(limit)) = (&cell.work, effort.at_most_seconds_each) else { return Ok(()) };
        let Some(pace) = self.0.get(&(model.clone(), variant.clone())) else { return Ok(()) };
        let seconds = pace * cell.flops as f64;
        if seconds <= limit {
            return Ok(());
        }
        let what = format!("one iteration would take {seconds:.0} s, going by other cells; the plan allows {limit} s");
        Err(failure("slow", what))
    }
}
