//! Which kernel brings which weights to the second-level cache.
//!
//! A forward reads all weights from memory once. Kernels of a few microseconds that wait for each other leave it idle most of the
//! time, so each product's weights are asked for while the product before it runs.

use std::sync::Arc;

use crate::gemm::Way;
use crate::jobs::{Job, Source};
use crate::operands::Ahead;
use crate::weights::Matrix;

/// What each job asks for besides its own work.
pub(crate) fn ahead(jobs: &[Job], ways: &[Option<Arc<Way>>]) -> Vec<Ahead> {
    let mut asked = vec![Ahead::default(); jobs.len()];
    let can = |i: usize| match &jobs[i] {
        Job::Norm { .. } => true,
        _ => ways[i].as_ref().is_some_and(|way| way.fetches_ahead()),
    };
    let products: Vec<(usize, &Matrix)> =
        jobs.iter().enumerate().filter_map(|(i, job)| Some((i, weights(job)?))).collect();
    for (k, &(product, w)) in products.iter().enumerate() {
        // The one before it or what comes before that, for time enough; else what lies between.
        let before = k.checked_sub(1).map_or(0, |k| products[k].0 + 1);
        let free = |i: &usize| can(*i) && asked[*i].bytes == 0;
        if let Some(i) = (0..before).rev().chain((before..product).rev()).find(free) {
            // Behind the last whole piece there is nothing worth a load of its own.
            asked[i] = Ahead { from: w.weights.address(), bytes: (w.weights.bytes() & !15) as u64 };
        }
    }
    asked
}

fn weights(job: &Job) -> Option<&Matrix> {
    match job {
        Job::Linear { w, .. } | Job::Norm { source: Source::Product { w, .. }, .. } => Some(w),
        _ => None,
    }
}
