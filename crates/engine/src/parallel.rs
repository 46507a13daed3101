//! One function over many texts on several threads, results in input order.
//!
//! Scoped threads instead of a global pool: the number of threads is the model's own setting, and two models in one
//! process never wait for each other. Results do not depend on the number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Texts taken at once: enough that threads rarely meet at the counter, few enough that none waits long at the end.
const CHUNK: usize = 16;

/// `f` of each item and its place, in input order.
///
/// # Errors
/// The error of the first item (in input order among those tried) that has one.
pub(crate) fn try_map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    f: impl Fn(usize, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let chunks = items.len().div_ceil(CHUNK);
    let threads = threads.min(chunks);
    if threads <= 1 {
        return items.iter().enumerate().map(|(i, item)| f(i, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = items.chunks(CHUNK).nth(chunk) else { return done };
            let results: Result<Vec<R>, E> = part.iter().enumerate().map(|(i, t)| f(chunk * CHUNK + i, t)).collect();
            let failed = results.is_err();
            done.push((chunk, results));
            if failed {
                // Chunks are handed out in order, so every chunk before this one is in some thread's hands already.
                next.store(chunks, Ordering::Relaxed);
            }
        }
    };
    let mut parts = thread::scope(|scope| {
        // Where there can be no more threads, those that there are do the work.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let mut parts = work();
        for other in others {
            match other.join() {
                Ok(done) => parts.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        parts
    });
    parts.sort_by_key(|(chunk, _)| *chunk);
    let mut results = Vec::with_capacity(items.len());
    for (_, part) in parts {
        results.extend(part?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_errors_do_not_depend_on_threads() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 64] {
            let squares = try_map(&items, threads, |i, &x| if i == x { Ok(x * x) } else { Err(i) }).unwrap();
            assert_eq!(squares, items.iter().map(|x| x * x).collect::<Vec<_>>());
            let failed = try_map(&items, threads, |i, _| if i % 300 == 299 { Err(i) } else { Ok(()) });
            assert_eq!(failed, Err(299), "with {threads} threads");
        }
        assert_eq!(try_map(&[0; 0], 4, |_, &x: &i32| Ok::<_, ()>(x)), Ok(vec![]));
    }
}
