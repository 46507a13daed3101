//! The programs a device has made, by the plans they were made of.

use std::sync::{Arc, Mutex, PoisonError};

use mlxt_backend::Result;

use crate::trace::Trace;
use crate::{Device, Plan};

/// Programs that are kept. A model asks for one for each room and each kind of result; those used longest ago make way.
const KEPT: usize = 128;

/// What plans became.
pub(crate) struct Programs<D: Device> {
    /// The one used last comes first. A plan that is another one differs in its sizes or its first steps, so looking
    /// through all of them costs less than a hash of one.
    made: Mutex<Vec<Made<D>>>,
}

struct Made<D: Device> {
    /// Keeps its weights where they are: others at the same place would pass for them.
    plan: Arc<Plan<D>>,
    program: Arc<D::Program>,
}

impl<D: Device> Programs<D> {
    pub(crate) fn new() -> Self {
        Self { made: Mutex::new(vec![]) }
    }

    /// The program for what has to run, made now if it is the first of its kind.
    pub(crate) fn get(&self, device: &D, trace: &Trace<'_, D>) -> Result<Arc<D::Program>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = made.iter().position(|made| trace.is(&made.plan)) {
            made[..=place].rotate_right(1);
        } else {
            made.truncate(KEPT - 1);
            let plan = Arc::new(trace.plan());
            let program = Arc::new(device.compile(Arc::clone(&plan))?);
            made.insert(0, Made { plan, program });
        }
        Ok(Arc::clone(&made[0].program))
    }
}
