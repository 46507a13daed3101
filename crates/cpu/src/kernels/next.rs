//! Which weights come after which: a model uses its matrices in the same order in every forward. So while a thread is at
//! its last panel of one, it can bring the first of the next nearer: memory does not rest between products.
//!
//! A guess only, from the product that came next the last time: what is fetched changes no result, and any address may be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gemm::plan::After;

/// Where a matrix's packed weights lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The address of the first panel.
    pub(crate) start: usize,
    /// Bytes of a panel.
    pub(crate) panel: usize,
    pub(crate) count: usize,
}

impl Place {
    /// A panel's weights, for fetching alone.
    fn panel<W>(self, i: usize) -> *const W {
        std::ptr::without_provenance(self.start.wrapping_add(i * self.panel))
    }
}

/// Where the weights lie that were used after a matrix's, if any were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Next(Arc<Mutex<Option<Place>>>);

impl Next {
    /// What a thread needs after a task with weights at `place`, if that is known: to be fetched alone. Of the weights that
    /// come next that is what lies as far inside them as its share did.
    pub(crate) fn weights<W>(&self, place: Place, after: After) -> Option<*const W> {
        match after {
            After::Panel(panel) => Some(place.panel(panel)),
            After::Share(panel) => lock(&self.0).map(|next| next.panel(panel * next.count / place.count)),
        }
    }
}

/// The matrix that was used last.
#[derive(Debug, Default)]
pub(crate) struct Last(Mutex<Option<Next>>);

impl Last {
    /// The matrix at `place`, with `next`, is used now.
    pub(crate) fn is(&self, place: Place, next: &Next) {
        let before = lock(&self.0).replace(next.clone());
        if let Some(before) = before {
            *lock(&before.0) = Some(place);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_next_the_last_time_is_known() {
        let (last, [a, b]) = (Last::default(), [Next::default(), Next::default()]);
        let [at_a, at_b] = [(1000, 24), (5000, 72)].map(|(start, count)| Place { start, panel: 10, count });
        assert_eq!(a.weights::<f32>(at_a, After::Share(0)), None);
        for _ in 0..2 {
            last.is(at_a, &a);
            last.is(at_b, &b);
        }
        let address = |next: &Next, place, after| next.weights::<f32>(place, after).map(<*const f32>::addr);
        assert_eq!(address(&a, at_a, After::Panel(7)), Some(1070));
        assert_eq!(address(&a, at_a, After::Share(0)), Some(5000));
        assert_eq!(address(&a, at_a, After::Share(12)), Some(5000 + 36 * 10));
        assert_eq!(address(&b, at_b, After::Share(36)), Some(1000 + 12 * 10));
    }
}
