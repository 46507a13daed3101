//! Which ways to multiply are the fastest together. By themselves they are timed before ([`crate::gemm::fastest`]); among others a
//! kernel may begin while the one in front of it ends, or may not for want of room, and finds other things in the caches.

use std::sync::Arc;

use mlxt_backend::{Error, Result};
use mlxt_lazy::Plan;

use crate::CudaDevice;
use crate::device::{Inner, lock};
use crate::gemm::{Size, Way, Ways};
use crate::jobs::{Job, Jobs};
use crate::program::Recording;
use crate::weights::Matrix;

/// What another way has to save of the whole, for times differ a little from one run to the next.
const LEAST: f32 = 0.995;
/// How often each is tried: what is fastest depends on what the others are.
const PASSES: usize = 2;

/// A recording of a plan by the ways that are the fastest together; `record` makes one of any.
///
/// # Errors
/// Those of `record`; the driver's or cuBLASLt's own; no memory.
pub(crate) fn together(
    inner: &Inner,
    plan: &Plan<CudaDevice>,
    record: impl Fn(&Ways) -> Result<Recording>,
) -> Result<Recording> {
    let tried = ways(inner, plan)?;
    let sizes: Vec<Size> = tried.iter().map(|(size, _)| *size).collect();
    if let Some(ways) = lock(&inner.together).get(&sizes) {
        return record(ways);
    }
    let first = |(size, ways): &(Size, Vec<Arc<Way>>)| Some((*size, Arc::clone(ways.first()?)));
    let mut ways: Ways = tried.iter().filter_map(first).collect();
    let mut best = record(&ways)?;
    let all: Vec<(Size, &Arc<Way>)> =
        tried.iter().flat_map(|(size, ways)| ways.iter().map(move |way| (*size, way))).collect();
    if all.len() > tried.len() {
        let by_themselves = best.time(inner)?.min(best.time(inner)?);
        let mut least = by_themselves;
        for &(size, way) in std::iter::repeat_n(&all, PASSES).flatten() {
            if Arc::ptr_eq(&ways[&size], way) {
                continue;
            }
            let mut changed = ways.clone();
            changed.insert(size, Arc::clone(way));
            let recording = match record(&changed) {
                // Parts of a sum take more room.
                Err(Error::OutOfMemory { .. }) => continue,
                recording => recording?,
            };
            let time = recording.time(inner)?;
            if time < LEAST * least {
                (least, ways, best) = (time, changed, recording);
            }
        }
        let name = |(size, way): (&Size, &Arc<Way>)| {
            format!("{}x{}x{} {}", size.room, size.outputs, size.inputs, way.describe())
        };
        let shown: Vec<_> = ways.iter().map(name).collect();
        inner.note(format!("together {:.1} us for {:.1}: {}", least * 1e3, by_themselves * 1e3, shown.join(", ")));
    }
    lock(&inner.together).insert(sizes, ways);
    Ok(best)
}

/// The fastest ways of each size of a plan, in the order of its jobs.
fn ways(inner: &Inner, plan: &Plan<CudaDevice>) -> Result<Vec<(Size, Vec<Arc<Way>>)>> {
    let mut sizes: Vec<(Size, Vec<Arc<Matrix>>)> = Vec::new();
    for job in &Jobs::of(plan).list {
        let (Job::Linear { w, .. }, Some(size)) = (job, job.size(plan)) else { continue };
        let w = Arc::clone(w);
        match sizes.iter_mut().find(|(known, _)| *known == size) {
            Some((_, matrices)) => matrices.push(w),
            None => sizes.push((size, vec![w])),
        }
    }
    sizes.into_iter().map(|(size, matrices)| Ok((size, inner.fastest(size, &matrices)?))).collect()
}
