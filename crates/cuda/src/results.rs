//! Values that outlive a run, and how they reach the host.
//!
//! A result stays where its program left it, in memory that the next program writes to: mostly it has been read and let
//! go by then, and neither memory nor a copy was needed. Before the next one starts, those that somebody still holds get
//! memory of their own.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use mlxt_backend::convert::decode;
use mlxt_backend::pieces::in_pieces;
use mlxt_backend::{DType, Result};

use crate::device::lock;
use crate::ffi::context::Context;
use crate::ffi::landing::Landing;
use crate::ffi::memory::{Memory, copy};
use crate::program::{Ground, Place};

/// The most bytes that come to the host in one copy: 20 µs on the bus, so that what a copy costs by itself is little of
/// it. More is in pieces, of which some arrive while others are converted.
const PIECE: usize = 1 << 19;

/// Activations that outlive a run.
#[derive(Debug)]
pub struct Buffer {
    pub(crate) memory: Arc<Kept>,
}

/// A result's values. Its address is another one once they were moved.
pub(crate) struct Kept {
    at: Mutex<At>,
}

enum At {
    /// Where a program left them, in memory that stays for as long.
    Lent {
        place: Place,
        _ground: Arc<Ground>,
    },
    Own(Memory),
}

impl Kept {
    /// Where they are.
    pub(crate) fn address(&self) -> u64 {
        match &*lock(&self.at) {
            At::Lent { place, .. } => place.address,
            At::Own(memory) => memory.address(),
        }
    }

    /// How much room they take.
    pub(crate) fn bytes(&self) -> usize {
        match &*lock(&self.at) {
            At::Lent { place, .. } => place.bytes,
            At::Own(memory) => memory.bytes(),
        }
    }

    /// Gives them memory of their own, in the order of the stream. [`Results`] are held, or no other thread knows of this.
    ///
    /// # Errors
    /// No memory; the driver's own.
    pub(crate) fn settle(&self, context: &Arc<Context>) -> Result<()> {
        let mut at = lock(&self.at);
        if let At::Lent { place, .. } = &*at {
            let memory = Memory::new(context, place.bytes)?;
            // SAFETY: both have that many bytes, and `at` keeps the place until the copy is in the stream; memory is given
            // back behind it.
            unsafe { copy(context, memory.address(), place.address, place.bytes) }?;
            *at = At::Own(memory);
        }
        Ok(())
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.bytes())
    }
}

/// The results of the last run. While this is held nothing is written over them.
#[derive(Debug, Default)]
pub(crate) struct Results {
    lent: Vec<Weak<Kept>>,
}

impl Results {
    /// Gives what somebody still holds of the last run memory of its own: the next one may start.
    ///
    /// # Errors
    /// As [`Kept::settle`]; nothing may be started then.
    pub(crate) fn settle(&mut self, context: &Arc<Context>) -> Result<()> {
        self.lent.iter().filter_map(Weak::upgrade).try_for_each(|kept| kept.settle(context))?;
        self.lent.clear();
        Ok(())
    }

    /// The result that a run that was just started leaves at a place.
    pub(crate) fn lend(&mut self, place: Place, ground: &Arc<Ground>) -> Buffer {
        let memory = Arc::new(Kept { at: Mutex::new(At::Lent { place, _ground: Arc::clone(ground) }) });
        self.lent.push(Arc::downgrade(&memory));
        Buffer { memory }
    }
}

/// Where results arrive on the host: as many places as there were ever needed at a time.
#[derive(Debug, Default)]
pub(crate) struct Landings {
    free: Mutex<Vec<Landing>>,
}

impl Landings {
    fn take(&self, context: &Arc<Context>) -> Result<Landing> {
        let free = lock(&self.free).pop();
        free.map_or_else(|| Landing::new(context, PIECE), Ok)
    }

    /// The first `count` values of a buffer of that type.
    ///
    /// # Errors
    /// The driver's own, of any work the values depend on.
    pub(crate) fn read(
        &self,
        (context, results): (&Arc<Context>, &Mutex<Results>),
        kept: &Kept,
        count: usize,
        element: DType,
    ) -> Result<Vec<f32>> {
        let (each, size) = (PIECE / element.size(), element.size());
        let count = count.min(kept.bytes() / size);
        let start = |landing: &mut Landing, first: usize| {
            // SAFETY: so many values follow the first one.
            unsafe { landing.start(kept.address() + (first * size) as u64, each.min(count - first) * size) }
        };
        let mut landing = self.take(context)?;
        {
            // Until the copy is in the stream, no program may be in front of it that writes there.
            let _results = lock(results);
            if count > each {
                kept.settle(context)?;
            }
            start(&mut landing, 0)?;
        }
        // While the device is still at work: of zeros the system would make each page when the first value arrives there.
        let mut values = vec![f32::NAN; count];
        let begun = Mutex::new(Some(landing));
        in_pieces(&mut values, each, |number, piece| {
            context.bind()?;
            let first = if number == 0 { lock(&begun).take() } else { None };
            let mut landing = first.map_or_else(|| self.take(context), Ok)?;
            if number > 0 {
                start(&mut landing, number * each)?;
            }
            decode(element, landing.bytes(piece.len() * size)?, piece);
            lock(&self.free).push(landing);
            Ok(())
        })?;
        Ok(values)
    }
}
