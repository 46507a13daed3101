//! Which ways to multiply are the fastest together. By themselves they are timed before ([`gemm::fastest`]); among others a
//! kernel may begin while the one in front of it ends, or may not for want of room, and finds other things in the caches.
//!
//! Trials of a size take a tenth to half a second, so what they found is kept on disk beside the kernels: by name, which
//! [`Way::describe`] gives.

use std::str;
use std::sync::Arc;

use mlxt_backend::{Error, Result};
use mlxt_lazy::Plan;

use crate::CudaDevice;
use crate::cache::key;
use crate::device::{Inner, lock};
use crate::gemm::{self, Size, Way, Ways};
use crate::jobs::{Job, Jobs};
use crate::program::Recording;
use crate::weights::Matrix;

/// What another way has to save of the whole, for times differ a little from one run to the next.
const LEAST: f32 = 0.995;
/// How often each is tried: what is fastest depends on what the others are.
const PASSES: usize = 2;

/// A plan's products: each size, and the matrices of those that have it.
type Products = Vec<(Size, Vec<Arc<Matrix>>)>;

/// A recording of a plan by the ways that are the fastest together; `record` makes one of any.
///
/// # Errors
/// Those of `record`; the driver's or cuBLASLt's own; no memory.
pub(crate) fn together(
    inner: &Inner,
    plan: &Plan<CudaDevice>,
    record: impl Fn(&Ways) -> Result<Recording>,
) -> Result<Recording> {
    let products = products(plan);
    let sizes: Vec<Size> = products.iter().map(|(size, _)| *size).collect();
    if let Some(ways) = lock(&inner.together).get(&sizes) {
        return record(ways);
    }
    let (ways, recording) = kept(inner, &products, &sizes, &record)?;
    lock(&inner.together).insert(sizes, ways);
    Ok(recording)
}

/// By the ways that a run before found, or by those that trials find.
fn kept(
    inner: &Inner,
    products: &Products,
    sizes: &[Size],
    record: &impl Fn(&Ways) -> Result<Recording>,
) -> Result<(Ways, Recording)> {
    let Some(ground) = inner.choices.as_ref().filter(|_| !sizes.is_empty()) else {
        return tried(inner, products, record);
    };
    let entry = format!("{}.ways", key(&[ground, &format!("{sizes:?}")]));
    let mut found = None;
    let names = inner.cache.get(&entry, || {
        let (ways, recording) = tried(inner, products, record)?;
        let names = names(sizes, &ways);
        found = Some((ways, recording));
        Ok(names.into_bytes())
    })?;
    if let Some(found) = found {
        return Ok(found);
    }
    let ways = named(sizes, &names, |size, name| gemm::named(inner, size, name))?;
    // Others found them, perhaps with more memory to themselves.
    if let Some(ways) = ways
        && let Ok(recording) = record(&ways)
    {
        inner.note(format!("kept: {}", describe(&ways)));
        return Ok((ways, recording));
    }
    inner.cache.forget(&entry);
    tried(inner, products, record)
}

/// The ways of sizes, a line each.
fn names(sizes: &[Size], ways: &Ways) -> String {
    sizes.iter().filter_map(|size| ways.get(size)).map(|way| way.describe()).collect::<Vec<_>>().join("\n")
}

/// The ways that were written down by [`names`]; none if one of them is not there any more.
fn named(sizes: &[Size], names: &[u8], way: impl Fn(Size, &str) -> Result<Option<Way>>) -> Result<Option<Ways>> {
    let names: Vec<&str> = str::from_utf8(names).unwrap_or_default().lines().collect();
    if names.len() != sizes.len() {
        return Ok(None);
    }
    let found = |(&size, name): (&Size, &str)| Ok(way(size, name)?.map(|way| (size, Arc::new(way))));
    sizes.iter().zip(names).map(found).collect()
}

/// By the ways that are the fastest of some that are tried.
fn tried(
    inner: &Inner,
    products: &Products,
    record: &impl Fn(&Ways) -> Result<Recording>,
) -> Result<(Ways, Recording)> {
    let tried = products.iter().map(|(size, matrices)| Ok((*size, inner.fastest(*size, matrices)?)));
    let tried = tried.collect::<Result<Vec<(Size, Vec<Arc<Way>>)>>>()?;
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
        inner.note(format!("together {:.1} us for {:.1}: {}", least * 1e3, by_themselves * 1e3, describe(&ways)));
    }
    Ok((ways, best))
}

/// What was chosen, for whoever looks.
fn describe(ways: &Ways) -> String {
    let name =
        |(size, way): (&Size, &Arc<Way>)| format!("{}x{}x{} {}", size.room, size.outputs, size.inputs, way.describe());
    let mut names: Vec<String> = ways.iter().map(name).collect();
    names.sort_unstable();
    names.join(", ")
}

/// A plan's, in the order of its jobs.
fn products(plan: &Plan<CudaDevice>) -> Products {
    let mut products = Products::new();
    for job in &Jobs::of(plan).list {
        let (Job::Linear { w, .. }, Some(size)) = (job, job.size(plan)) else { continue };
        let w = Arc::clone(w);
        match products.iter_mut().find(|(known, _)| *known == size) {
            Some((_, matrices)) => matrices.push(w),
            None => products.push((size, vec![w])),
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use mlxt_backend::Activation;

    use super::*;
    use crate::ffi::module::{Function, Shape};
    use crate::operand::Operand;

    fn size(room: usize) -> Size {
        let activation = Activation::Identity;
        Size { room, outputs: 8, inputs: 8, activation, parts: false, normed: false, operand: Operand::Kept }
    }

    fn way(cluster: usize) -> Way {
        let (function, shape) = (Function::none(), Shape { grid: [1, 1, cluster], threads: 160, shared: 0 });
        Way::Hopper { name: "few_64_32", function, shape, tile: (64, 32), cluster, parts: 1 }
    }

    /// What is there now: clusters of 1 to 4.
    fn there(name: &str) -> Option<Way> {
        (1..=4).map(way).find(|way| way.describe() == name)
    }

    #[test]
    fn what_was_written_down_is_found_again() {
        let sizes = [size(32), size(16)];
        let ways: Ways = [(sizes[0], Arc::new(way(3))), (sizes[1], Arc::new(way(2)))].into();
        let written = names(&sizes, &ways);
        let found = named(&sizes, written.as_bytes(), |_, name| Ok(there(name))).unwrap().unwrap();
        assert_eq!(sizes.map(|size| found[&size].describe()), sizes.map(|size| ways[&size].describe()));
    }

    #[test]
    fn what_is_not_there_any_more_or_damaged_is_as_if_it_had_never_been() {
        let sizes = [size(32), size(16)];
        let written = |clusters: [usize; 2]| {
            let ways = sizes.iter().zip(clusters).map(|(&size, cluster)| (size, Arc::new(way(cluster)))).collect();
            names(&sizes, &ways)
        };
        let found = |names: &[u8]| named(&sizes, names, |_, name| Ok(there(name))).unwrap().is_some();
        assert!(found(written([4, 1]).as_bytes()));
        assert!(!found(written([5, 1]).as_bytes()), "one is gone");
        assert!(!found(b"") && !found(b"\xff\n\xff") && !found(b"cuBLASLt 0\nany"));
        let twice = written([1, 1]);
        assert!(!found(format!("{twice}\n{twice}").as_bytes()), "of other sizes");
    }
}
