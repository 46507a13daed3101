//! A long array that several threads fill, piece by piece: how results reach the host. Not for what is computed, which has threads
//! of its own in each backend.

use std::num::NonZero;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use crate::Result;

/// Threads that fill an array together, at most: one alone takes 1.4 ms to make 6 MB of f16 the 12 MB of f32 that they are as the
/// hidden states of 4000 tokens, of which four need less than half.
const THREADS: usize = 4;

/// Calls `fill` for every `each` values, and for what is left at the end, with the number of the piece. Pieces are begun in their
/// order, on as many threads as there are pieces for.
///
/// # Errors
/// One of those that `fill` gave; no other piece is begun then.
pub fn in_pieces<T: Send>(
    values: &mut [T],
    each: usize,
    fill: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let each = each.max(1);
    let threads = values.len().div_ceil(each).min(THREADS);
    let threads = if threads > 1 { threads.min(processors()) } else { 1 };
    let pieces = Mutex::new((values.chunks_mut(each).enumerate(), Ok(())));
    let work = || {
        loop {
            let next = {
                let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
                if pieces.1.is_ok() { pieces.0.next() } else { None }
            };
            let Some((number, piece)) = next else { return };
            if let Err(error) = fill(number, piece) {
                pieces.lock().unwrap_or_else(PoisonError::into_inner).1 = Err(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where there can be no thread, the others do its work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    pieces.into_inner().unwrap_or_else(PoisonError::into_inner).1
}

/// How many threads run at a time here. Asked once: the answer is in files.
fn processors() -> usize {
    static KNOWN: OnceLock<usize> = OnceLock::new();
    *KNOWN.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn every_piece_is_filled_once() {
        for (len, each) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (1000, 0)] {
            let mut values = vec![0; len];
            let filled = in_pieces(&mut values, each, |number, piece| {
                assert!(piece.len() == each.max(1) || number == len / each.max(1));
                for (i, value) in piece.iter_mut().enumerate() {
                    *value += number * each.max(1) + i + 1;
                }
                Ok(())
            });
            assert_eq!(filled, Ok(()));
            assert_eq!(values, (1..=len).collect::<Vec<_>>(), "{len} by {each}");
        }
    }

    #[test]
    fn an_error_ends_it() {
        let failed = || Error::Empty { found: "nothing".into() };
        let mut values = vec![0; 1000];
        let filled = in_pieces(&mut values, 10, |number, piece| {
            if number >= 3 {
                return Err(failed());
            }
            piece.fill(1);
            Ok(())
        });
        assert_eq!(filled, Err(failed()));
        assert!(values[..30].iter().all(|&value| value == 1) && values[30..].iter().all(|&value| value == 0));
    }
}
