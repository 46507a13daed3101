//! Page-locked memory in which results arrive. The device writes there by itself, behind the work that makes them; to
//! memory of another kind the driver copies in a second step, when the host has noticed that the first one is done.

use std::sync::Arc;

use mlxt_backend::Result;

use super::context::{Context, Event};
use super::memory::Pinned;

/// A place for one copy at a time.
#[derive(Debug)]
pub(crate) struct Landing {
    pinned: Pinned,
    arrived: Event,
}

impl Landing {
    /// A place for that many bytes.
    ///
    /// # Errors
    /// [`mlxt_backend::Error::OutOfMemory`].
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        Ok(Self { pinned: Pinned::new(context, bytes)?, arrived: Event::untimed(context)? })
    }

    /// Starts a copy from the device, in the order of the stream.
    ///
    /// # Errors
    /// The driver's own.
    ///
    /// # Safety
    /// There are as many bytes at `from`.
    pub(crate) unsafe fn start(&mut self, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise; `bytes` waits for the copy, and so does the next one, which comes behind it.
        unsafe { self.pinned.receive(from, bytes) }?;
        self.arrived.record()
    }

    /// The first bytes of what was copied last, when they have arrived.
    ///
    /// # Errors
    /// The driver's own, of any work the values depend on.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        self.arrived.wait()?;
        Ok(&self.pinned.bytes()[..count])
    }
}
