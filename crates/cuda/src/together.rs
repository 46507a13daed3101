//! Which ways to multiply are the fastest together. By themselves they are timed before ([`crate::gemm::fastest`]); among others a
//! kernel may begin while the one in front of it ends, or may not for want of room, and finds other things in the caches.

use std::collections::HashMap;
use std::sync::Arc;

use mlxt_backend::Result;
use mlxt_lazy::Plan;

use crate::CudaDevice;
use crate::device::{Inner, lock};
use crate::gemm::{Size, Way};
use crate::jobs::{Job, Jobs};
use crate::program::{Recording, Ways};
use crate::weights::Matrix;

/// What another way has to save of the whole, for times differ a little from one run to the next.
const LEAST: f32 = 0.995;

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
    if tried.iter().any(|(_, ways)| ways.len() > 1) {
        let (by_themselves, mut least) = (best.time(inner)?, best.time(inner)?);
        for (size, others) in &tried {
            for other in others.iter().skip(1) {
                let mut changed = ways.clone();
                changed.insert(*size, Arc::clone(other));
                let recording = record(&changed)?;
                let time = recording.time(inner)?;
                if time < LEAST * least {
                    (least, ways, best) = (time, changed, recording);
                }
            }
        }
        let shown: Vec<_> = ways
            .iter()
            .map(|(size, way)| format!("{}x{}x{} {}", size.room, size.outputs, size.inputs, way.describe()))
            .collect();
        inner.note(format!("together {:.1} us for {:.1}: {}", least * 1e3, by_themselves * 1e3, shown.join(", ")));
    }
    lock(&inner.together).insert(sizes, ways);
    Ok(best)
}

/// The fastest ways of each size of a plan, in the order of its jobs.
fn ways(inner: &Inner, plan: &Plan<CudaDevice>) -> Result<Vec<(Size, Vec<Arc<Way>>)>> {
    let mut order: Vec<Size> = Vec::new();
    let mut matrices: HashMap<Size, Vec<Arc<Matrix>>> = HashMap::new();
    for job in &Jobs::of(plan).list {
        if let (Job::Linear { w, .. }, Some(size)) = (job, job.size(plan)) {
            matrices.entry(size).or_insert_with(|| {
                order.push(size);
                Vec::new()
            });
            if let Some(matrices) = matrices.get_mut(&size) {
                matrices.push(Arc::clone(w));
            }
        }
    }
    order.into_iter().map(|size| Ok((size, inner.fastest(size, &matrices[&size])?))).collect()
}
