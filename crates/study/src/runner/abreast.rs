//! Work side by side: several items at a time, results in the items' order. Nothing that is timed goes through here.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does `work` on every item, on at most `at_once` of them at a time; `begun` hears the place of each as its turn comes.
pub(super) fn abreast<I: Send, R: Send>(
    items: Vec<I>,
    at_once: usize,
    begun: &mut dyn FnMut(usize),
    work: impl Fn(I) -> R + Sync,
) -> Vec<R> {
    let count = items.len();
    let mut results: Vec<Option<R>> = Vec::new();
    results.resize_with(count, || None);
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = |tell: Sender<(usize, Option<R>)>| {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, item)) = next else { break };
            // Whoever hears is there until all have ended.
            let _ = tell.send((place, None));
            let _ = tell.send((place, Some(work(item))));
        }
    };
    thread::scope(|scope| {
        let (tell, hear) = channel();
        // Where there can be no more threads, those that there are do the work, or this one.
        let spawn = |_| {
            let tell = tell.clone();
            let take = &take;
            thread::Builder::new().spawn_scoped(scope, move || take(tell)).ok()
        };
        if (0..at_once.clamp(1, count.max(1))).map_while(spawn).count() == 0 {
            take(tell.clone());
        }
        drop(tell);
        for (place, news) in hear {
            match news {
                None => begun(place),
                done => results[place] = done,
            }
        }
    });
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_are_in_order_and_no_more_run_than_may() {
        for (count, at_once) in [(0, 3), (1, 3), (20, 1), (20, 3), (3, 20), (5, 0)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut begun = Vec::new();
            let squares = abreast((0..count).collect(), at_once, &mut |place| begun.push(place), |n: usize| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis((count - n) as u64));
                running.fetch_sub(1, Ordering::SeqCst);
                n * n
            });
            assert_eq!(squares, (0..count).map(|n| n * n).collect::<Vec<_>>());
            begun.sort_unstable();
            assert_eq!(begun, (0..count).collect::<Vec<_>>());
            assert!(most.into_inner() <= at_once.max(1), "{count} {at_once}");
        }
    }
}
