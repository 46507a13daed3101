//! The programs a device has made, by the steps they were made of.

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlxt_backend::Result;

use crate::Device;
use crate::asked::Asked;
use crate::plan::ValueId;
use crate::recording::State;
use crate::script::Script;
use crate::trace::{Feed, Role, Room};

/// Programs that are kept. A model asks for one for each room and each kind of result; those used longest ago make way.
const KEPT: usize = 128;

/// What scripts became.
pub(crate) struct Programs<D: Device> {
    /// The one used last comes first.
    made: Mutex<Vec<Arc<Made<D>>>>,
}

/// A program, and what it was made of.
pub(crate) struct Made<D: Device> {
    /// Keeps its weights where they are: others at the same place would pass for them.
    script: Arc<Script<D>>,
    pub(crate) roles: Vec<Role>,
    pub(crate) feeds: Vec<Feed>,
    rooms: Vec<Room>,
    pub(crate) program: D::Program,
}

impl<D: Device> Programs<D> {
    pub(crate) fn new() -> Self {
        Self { made: Mutex::new(vec![]) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Made<D>>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A script, the one that ran last if there are several, that begins with the first steps of this one and goes on
    /// with what is asked for.
    pub(crate) fn continued(
        &self,
        script: &Script<D>,
        steps: usize,
        asked: &Asked<'_, D>,
        cols: usize,
    ) -> Option<Arc<Script<D>>> {
        let made = self.lock();
        let goes_on =
            |made: &&Arc<Made<D>>| made.script.has(steps, asked, cols) && made.script.begins_with(script, steps);
        made.iter().find(goes_on).map(|made| Arc::clone(&made.script))
    }

    /// The program for a value, made now if it is the first of its kind.
    pub(crate) fn get(&self, device: &D, state: &mut State<D>, wanted: ValueId) -> Result<Arc<Made<D>>> {
        let roles = state.roles(wanted);
        let mut all = self.lock();
        if let Some(place) = all.iter().position(|made| made.is(device, state, &roles)) {
            all[..=place].rotate_right(1);
        } else {
            all.truncate(KEPT - 1);
            let part = state.part(&roles);
            let feeds = part.feeds.clone();
            let rooms = feeds.iter().map(|&feed| state.room(device, feed)).collect();
            let program = device.compile(Arc::new(state.plan(device, &roles, part)))?;
            let script = state.publish(|own| {
                let same = |made: &&Arc<Made<D>>| made.script.begins_with(own, own.steps.len());
                all.iter().find(same).map(|made| Arc::clone(&made.script))
            });
            all.insert(0, Arc::new(Made { script, roles, feeds, rooms, program }));
        }
        Ok(Arc::clone(&all[0]))
    }
}

impl<D: Device> Made<D> {
    /// Whether it computes that.
    fn is(&self, device: &D, state: &State<D>, roles: &[Role]) -> bool {
        let begins = || {
            let script = state.script();
            self.script.begins_with(script, script.steps.partition_point(|step| step.result.0 < roles.len()))
        };
        let has_room = |(&feed, room): (&Feed, &Room)| state.room(device, feed) == *room;
        self.roles == roles
            && (ptr::eq(Arc::as_ptr(&self.script), state.script()) || begins())
            && self.feeds.iter().zip(&self.rooms).all(has_room)
    }
}
