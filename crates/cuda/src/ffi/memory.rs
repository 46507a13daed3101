//! Memory on the device and pinned memory on the host.

use std::ptr::null_mut;
use std::slice;
use std::sync::Arc;

use cudarc::driver::sys;
use mlxt_backend::Result;

use super::context::{Context, Queue};
use super::{check, check_memory};

/// A block of device memory. Taken and given back in the order of the stream's work, so a block may be dropped while
/// work that uses it is still under way.
#[derive(Debug)]
pub(crate) struct Memory {
    context: Arc<Context>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// A block of unknown contents.
    ///
    /// # Errors
    /// [`mlxt_backend::Error::OutOfMemory`].
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let (mut address, size) = (0, bytes.max(1));
        // SAFETY: the pointer is to a local.
        let code = unsafe { sys::cuMemAllocAsync(&raw mut address, size, context.stream(Queue::Work)) };
        check_memory("cuMemAllocAsync", size, code)?;
        Ok(Self { context: Arc::clone(context), address, bytes })
    }

    /// A block with these values in it, which have arrived when this returns.
    pub(crate) fn with<N: Number>(context: &Arc<Context>, values: &[N]) -> Result<Self> {
        let bytes = size_of_val(values);
        let memory = Self::new(context, bytes)?;
        if bytes > 0 {
            // SAFETY: the block has that size; the copy is waited for before the borrow ends.
            let copied = unsafe {
                sys::cuMemcpyHtoDAsync_v2(memory.address, values.as_ptr().cast(), bytes, context.stream(Queue::Work))
            };
            check("cuMemcpyHtoDAsync", copied)?;
            context.synchronize()?;
        }
        Ok(memory)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fills the first bytes with one value.
    pub(crate) fn fill(&self, value: u8, bytes: usize) -> Result<()> {
        let bytes = bytes.min(self.bytes);
        // SAFETY: within the block.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(self.address, value, bytes, self.context.stream(Queue::Work))
        })
    }

    /// The first `count` values, when all work before has finished. Nothing is written to the host's memory before.
    pub(crate) fn values<N: Number>(&self, count: usize) -> Result<Vec<N>> {
        let mut values: Vec<N> = Vec::new();
        let bytes = size_of::<N>().saturating_mul(count);
        if bytes > self.bytes || values.try_reserve_exact(count).is_err() {
            return Err(mlxt_backend::Error::OutOfMemory { backend: super::BACKEND, bytes });
        }
        if bytes > 0 {
            // SAFETY: both sides have that many bytes; the copy is waited for below, also where it failed.
            let copied = unsafe {
                sys::cuMemcpyDtoHAsync_v2(
                    values.as_mut_ptr().cast(),
                    self.address,
                    bytes,
                    self.context.stream(Queue::Work),
                )
            };
            self.context.synchronize()?;
            check("cuMemcpyDtoHAsync", copied)?;
        }
        // SAFETY: there is room for `count`, all bytes of them have just been written, and any bytes are a value.
        unsafe { values.set_len(count) };
        Ok(values)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated in `new`, freed once, behind all work that was started with it.
            let _ = unsafe { sys::cuMemFreeAsync(self.address, self.context.stream(Queue::Work)) };
        }
    }
}

/// A type of which any bytes are a value.
pub(crate) trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for i32 {}
impl Number for f32 {}

/// Copies between places on the device, in the order of the stream.
///
/// # Errors
/// The driver's own.
///
/// # Safety
/// Both places have that many bytes.
pub(crate) unsafe fn copy(context: &Context, to: u64, from: u64, bytes: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    check("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, context.stream(Queue::Work)) })
}

/// Page-locked memory of the host, which the device copies from by itself.
#[derive(Debug)]
pub(crate) struct Pinned {
    context: Arc<Context>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: it owns its memory alone, like a boxed slice.
unsafe impl Send for Pinned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// A block of zeros.
    ///
    /// # Errors
    /// [`mlxt_backend::Error::OutOfMemory`].
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let (mut start, size) = (null_mut(), bytes.max(1));
        // SAFETY: the pointer is to a local; the block is zeroed over its whole size.
        unsafe {
            check_memory("cuMemHostAlloc", size, sys::cuMemHostAlloc(&raw mut start, size, 0))?;
            start.cast::<u8>().write_bytes(0, size);
        }
        Ok(Self { context: Arc::clone(context), start: start.cast(), bytes: size })
    }

    /// Its bytes. No copy from it may be under way: [`super::context::Event::wait`].
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: that many bytes were allocated and initialised; the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start, self.bytes) }
    }

    /// Its bytes, to look at. No copy to it may be under way.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: as above; nobody writes there while this is borrowed.
        unsafe { slice::from_raw_parts(self.start, self.bytes) }
    }

    /// Starts a copy of the first bytes from the device.
    ///
    /// # Safety
    /// There are as many on the device. Nothing looks at these here before the copy is done.
    pub(super) unsafe fn receive(&mut self, from: u64, bytes: usize) -> Result<()> {
        let bytes = bytes.min(self.bytes);
        // SAFETY: both sides have that many bytes; the rest is the caller's promise.
        let code =
            unsafe { sys::cuMemcpyDtoHAsync_v2(self.start.cast(), from, bytes, self.context.stream(Queue::Work)) };
        check("cuMemcpyDtoHAsync", code)
    }

    /// Starts a copy of all of it to the device.
    ///
    /// # Safety
    /// `to` has room for it, and it is not written to before the copy is done.
    pub(crate) unsafe fn send(&self, queue: Queue, to: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.start.cast(), self.bytes, self.context.stream(queue)) };
        check("cuMemcpyHtoDAsync", code)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // A copy from it may still be on its way.
            let _ = self.context.synchronize();
            // SAFETY: allocated in `new`, freed once.
            let _ = unsafe { sys::cuMemFreeHost(self.start.cast()) };
        }
    }
}
