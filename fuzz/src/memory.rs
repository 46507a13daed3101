//! Counts what is allocated, and refuses what no input may ask for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// More at once than this is refused, which ends the program.
const MOST: usize = 4 << 30;

static HELD: AtomicUsize = AtomicUsize::new(0);
static BASE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is the system's own with the same arguments; only sizes are counted beside it. A null pointer, where
// too much is asked for, is an allowed answer.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        if held > MOST {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about `layout` are passed on as they are.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` with this layout, as the caller promises of this allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Begins a new count.
pub(crate) fn reset() {
    let held = HELD.load(Ordering::Relaxed);
    BASE.store(held, Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
}

/// The most that was held since then, beyond what was held then.
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed).saturating_sub(BASE.load(Ordering::Relaxed))
}
