//! Where the system runs a thread, and getting it out from behind another.
//!
//! Linux may wake a thread on the processor of the one that wakes it, when at that moment no other is idle: a client that has just
//! sent a request is still running on the second of two. Its own balancing moves the thread on after milliseconds, in which a caller
//! that computes meanwhile is alone. Elsewhere nothing is known of that, and nothing is done.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// A thread's place.
#[derive(Debug, Default)]
pub(crate) struct Place {
    #[cfg(target_os = "linux")]
    thread: OnceLock<rustix::thread::Pid>,
}

impl Place {
    /// Is told by the thread itself which it is.
    pub(crate) fn is_mine(&self) {
        #[cfg(target_os = "linux")]
        self.thread.get_or_init(rustix::thread::gettid);
    }

    /// If the thread waits to run on the caller's processor it is put on another, of those it may run on.
    pub(crate) fn not_here(&self) {
        #[cfg(target_os = "linux")]
        if let Some(&thread) = self.thread.get() {
            // What the system refuses costs time alone.
            let _ = move_away(thread);
        }
    }
}

/// Forbids the caller's processor for a moment: a thread that waits there is moved at once, and one that runs elsewhere is not.
#[cfg(target_os = "linux")]
fn move_away(thread: rustix::thread::Pid) -> rustix::io::Result<()> {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};
    let all = sched_getaffinity(Some(thread))?;
    let (mut others, here) = (all, sched_getcpu());
    if here < rustix::thread::CpuSet::MAX_CPU {
        others.unset(here);
    }
    if others.count() == 0 || others == all {
        return Ok(());
    }
    sched_setaffinity(Some(thread), &others)?;
    sched_setaffinity(Some(thread), &all)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::thread::{gettid, sched_getaffinity};

    #[test]
    fn a_thread_may_run_where_it_could_before() {
        let place = Place::default();
        place.not_here();
        place.is_mine();
        let before = sched_getaffinity(Some(gettid())).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|_| place.not_here()));
        });
        assert_eq!(sched_getaffinity(Some(gettid())).unwrap(), before);
        assert_eq!(place.thread.get(), Some(&gettid()));
    }
}
