//! The programs a device has made, by the plans they were made of.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use mlxt_backend::Result;

use crate::{Device, Plan};

/// Programs that are kept. A model asks for one for each room and each kind of result; those used longest ago make way.
const KEPT: usize = 128;

/// What plans became.
pub(crate) struct Programs<D: Device> {
    made: Mutex<Made<D>>,
}

struct Made<D: Device> {
    /// By all of a plan that matters, in words.
    programs: HashMap<Vec<u64>, Entry<D>>,
    clock: u64,
}

struct Entry<D: Device> {
    program: Arc<D::Program>,
    /// Keeps the plan's weights where they are: a plan with others at the same place would pass for this one.
    _plan: Arc<Plan<D>>,
    last_used: u64,
}

impl<D: Device> Programs<D> {
    pub(crate) fn new() -> Self {
        Self { made: Mutex::new(Made { programs: HashMap::new(), clock: 0 }) }
    }

    /// The program of a plan, made now if it is the first of its kind.
    pub(crate) fn get(&self, device: &D, plan: Plan<D>) -> Result<Arc<D::Program>> {
        let mut words = Words::default();
        plan.hash(&mut words);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.clock += 1;
        let last_used = made.clock;
        if let Some(found) = made.programs.get_mut(&words.0) {
            found.last_used = last_used;
            return Ok(Arc::clone(&found.program));
        }
        if made.programs.len() >= KEPT {
            let oldest = made.programs.iter().min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| key.clone());
            oldest.map(|key| made.programs.remove(&key));
        }
        let plan = Arc::new(plan);
        let program = Arc::new(device.compile(Arc::clone(&plan))?);
        made.programs.insert(words.0, Entry { program: Arc::clone(&program), _plan: plan, last_used });
        Ok(program)
    }
}

/// Everything that is hashed, as it is: equal words mean equal plans.
#[derive(Default)]
struct Words(Vec<u64>);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0.push(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0.iter().fold(0, |h, word| h.rotate_left(5) ^ word)
    }
}
