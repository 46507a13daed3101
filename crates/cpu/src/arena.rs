//! Memory for activations: aligned blocks that go back to the backend when a tensor is dropped, and are used again.
//!
//! The arena keeps no size classes apart. A request takes the smallest free block that is large enough; if there is
//! none, it replaces the largest free block by a larger one. So it never holds more blocks than were once in use
//! together, each block only grows, and after the largest batch nothing is allocated any more.
//!
//! Blocks are zeroed once, when they are allocated: their contents are stale later, but never uninitialised.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlxt_backend::{Error, Result};

/// A cache line, and the widest vector.
const LINE: usize = 64;

/// A block of f32, aligned to 64 bytes, that is freed when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a block owns its memory alone, like a boxed slice.
unsafe impl Send for Block {}
// SAFETY: shared access only reads.
unsafe impl Sync for Block {}

impl Block {
    /// A block of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(len: usize) -> Result<Self> {
        let len = len.max(1);
        let bytes = len.saturating_mul(size_of::<f32>());
        match memory::zeroed(bytes) {
            Some(start) => Ok(Self { start: start.cast(), len }),
            None => Err(Error::OutOfMemory { backend: "cpu", bytes }),
        }
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<f32>()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it came from `memory::zeroed` with this size, and is given back only here.
        unsafe { memory::free(self.start.cast(), self.bytes()) }
    }
}

/// Memory from the system: pages of its own for large blocks, the common heap for others.
mod memory {
    use super::{LINE, Layout, NonNull, alloc_zeroed, dealloc};

    /// Blocks of at least this size are mapped from the system, which gives them zeroed where they are first touched:
    /// on the threads that fill them, not on the one that asks.
    #[cfg(target_os = "linux")]
    const MAPPED: usize = 1 << 20;

    /// `bytes` zeros, aligned to a line.
    pub(super) fn zeroed(bytes: usize) -> Option<NonNull<u8>> {
        #[cfg(target_os = "linux")]
        if bytes >= MAPPED {
            return mapped::zeroed(bytes);
        }
        let layout = Layout::from_size_align(bytes, LINE).ok()?;
        // SAFETY: no block is empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    /// # Safety
    /// `start` came from [`zeroed`] with the same size, and is not used again.
    pub(super) unsafe fn free(start: NonNull<u8>, bytes: usize) {
        #[cfg(target_os = "linux")]
        if bytes >= MAPPED {
            // SAFETY: what `mapped::zeroed` gave for this size, by the caller's promise.
            unsafe { libc::munmap(start.as_ptr().cast(), mapped::whole_pages(bytes)) };
            return;
        }
        // SAFETY: the size was valid when it was allocated, and so is this layout; the rest is the caller's promise.
        unsafe { dealloc(start.as_ptr(), Layout::from_size_align_unchecked(bytes, LINE)) }
    }

    #[cfg(target_os = "linux")]
    mod mapped {
        use super::NonNull;

        /// Streaming a matrix through pages of 4 KiB misses the address cache at each; the system gives larger ones
        /// to whoever asks and begins at a multiple of them.
        const HUGE_PAGE: usize = 2 << 20;

        /// The size in whole pages, of the largest size that Linux has them in (64 KiB, on Arm).
        pub(super) fn whole_pages(bytes: usize) -> usize {
            bytes.checked_next_multiple_of(64 << 10).unwrap_or(usize::MAX)
        }

        pub(super) fn zeroed(bytes: usize) -> Option<NonNull<u8>> {
            let size = whole_pages(bytes);
            let room = size.checked_add(HUGE_PAGE)?;
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: new pages, wherever the system likes.
            let mapping = unsafe { libc::mmap(std::ptr::null_mut(), room, protection, flags, -1, 0) };
            if mapping == libc::MAP_FAILED {
                return None;
            }
            let before = mapping.align_offset(HUGE_PAGE);
            let after = before + size;
            // SAFETY: `before` is less than HUGE_PAGE, so `size` bytes lie behind it. What lies around them is
            // unmapped, in whole pages; the advice does not change what they hold, and refused it costs only speed.
            unsafe {
                let start = mapping.add(before);
                if before > 0 {
                    libc::munmap(mapping, before);
                }
                if after < room {
                    libc::munmap(mapping.add(after), room - after);
                }
                libc::madvise(start, size, libc::MADV_HUGEPAGE);
                NonNull::new(start.cast())
            }
        }
    }
}

impl Deref for Block {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: that many values were allocated, aligned, and zeroed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Free blocks of one backend.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Block>,
    usage: Usage,
}

/// What an arena has asked of the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Blocks allocated since the start.
    pub(crate) allocations: usize,
    /// Bytes held now, in use or free.
    pub(crate) bytes: usize,
}

impl Arena {
    /// `len` values of unknown contents.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Result<Buffer> {
        let mut state = self.lock();
        let fitting = state.free.iter().enumerate().filter(|(_, b)| b.len() >= len).min_by_key(|(_, b)| b.len());
        let block = if let Some((i, _)) = fitting {
            state.free.swap_remove(i)
        } else {
            let largest = state.free.iter().enumerate().max_by_key(|(_, b)| b.len()).map(|(i, _)| i);
            if let Some(i) = largest {
                let outgrown = state.free.swap_remove(i);
                state.usage.bytes -= outgrown.bytes();
            }
            let block = Block::new(rounded(len))?;
            state.usage.allocations += 1;
            state.usage.bytes += block.bytes();
            block
        };
        drop(state);
        Ok(Buffer { block: Some(block), len, arena: Arc::clone(self) })
    }

    /// What it has asked of the system.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> Usage {
        self.lock().usage
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here leaves the state half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size allocated for a request: the next quarter power of two, so that a batch slightly larger than all before
/// finds room.
fn rounded(len: usize) -> usize {
    let len = len.max(LINE);
    let step = len.checked_next_power_of_two().map_or(LINE, |power| power / 8);
    len.checked_next_multiple_of(step).unwrap_or(usize::MAX)
}

/// A slice that gives its memory back to its arena when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    len: usize,
    arena: Arc<Arena>,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.block.as_ref().map_or(&[], |block| &block[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.block.as_mut().map_or(&mut [], |block| &mut block[..self.len])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.arena.lock().free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_zero() {
        for len in [1, 100, 1 << 18, (1 << 20) + 3] {
            let block = Block::new(len).unwrap();
            assert_eq!(block.as_ptr().addr() % LINE, 0);
            assert!(block.iter().all(|&v| v == 0.0) && block.len() >= len);
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let arena = Arc::new(Arena::default());
        for len in [usize::MAX, usize::MAX / 4, 1 << 60] {
            assert!(matches!(arena.take(len), Err(Error::OutOfMemory { backend: "cpu", .. })), "{len}");
        }
        assert_eq!(arena.usage(), Usage::default());
    }

    #[test]
    fn the_smallest_fitting_block_is_used_again() {
        let arena = Arc::new(Arena::default());
        let (large, small) = (arena.take(10_000).unwrap(), arena.take(1_000).unwrap());
        let (large_at, small_at) = (large.as_ptr(), small.as_ptr());
        drop(large);
        drop(small);
        let again = arena.take(900).unwrap();
        assert_eq!(again.as_ptr(), small_at);
        assert_eq!(arena.take(5_000).unwrap().as_ptr(), large_at);
        assert_eq!(arena.usage().allocations, 2);
    }

    #[test]
    fn a_block_that_is_too_small_is_replaced() {
        let arena = Arc::new(Arena::default());
        for len in [100, 1_000, 10_000, 100_000] {
            drop(arena.take(len).unwrap());
        }
        assert_eq!(arena.usage().bytes, rounded(100_000) * 4);
        assert!(rounded(100_000) <= 125_000);
    }
}
