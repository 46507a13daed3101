//! A pool of threads for jobs of microseconds: the caller takes part, idle threads spin for a moment before they sleep.
//!
//! A job is one closure that every participant runs, claiming task numbers until none are left: its own share, then the others'.
//! Who comes late finds nothing to claim, so nobody waits for a thread that was slow to wake up. A caller that finds
//! the pool busy runs its job alone: results never depend on who runs what, so this costs only time.

use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mlxt_backend::{Error, Result};

use crate::place::Place;

/// How long an idle thread spins before it sleeps. The pauses between the operations of a forward are shorter, and
/// waking a sleeping thread costs about as much.
const SPIN: Duration = Duration::from_micros(50);
/// How long a thread that was woken may take to come: one that is on its way to a processor of its own takes a few tens.
const LATE: Duration = Duration::from_micros(50);
/// Work below this many elementary steps (about 10 microseconds) is not worth the hand-off.
const SMALL: usize = 1 << 15;

/// Threads that wait for jobs, and stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Whether a caller is using the workers.
    busy: AtomicBool,
}

/// The tasks of a job, each handed out once over all participants: those of the participant's own share in order,
/// then what is left of the others'. So neighbouring tasks mostly run on one thread, after each other.
pub(crate) struct Claims<'a> {
    shares: &'a [Share],
    tasks: usize,
    slot: usize,
    /// Shares found used up.
    done: usize,
    /// Those whom the caller woke and who have not come yet.
    late: Option<&'a Shared>,
}

/// The next task of one share. On a line of its own: threads count without disturbing each other.
#[derive(Debug)]
#[repr(align(64))]
struct Share(AtomicUsize);

impl<'a> Claims<'a> {
    fn new(shares: &'a [Share], tasks: usize, slot: usize) -> Self {
        Self { shares, tasks, slot, done: 0, late: None }
    }

    /// The share of `count` that a task is in.
    pub(crate) fn share(task: usize, count: usize, tasks: usize) -> Range<usize> {
        let shares = (0..count).map(|i| Self::first(i, count, tasks)..Self::first(i + 1, count, tasks));
        shares.clone().find(|share| share.contains(&task)).unwrap_or(task..tasks)
    }

    /// The first task of share `i` of `count`, which is also the end of the one before.
    fn first(i: usize, count: usize, tasks: usize) -> usize {
        i * tasks / count
    }
}

impl Iterator for Claims<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if let Some(shared) = self.late {
            self.late = shared.hurry().then_some(shared);
        }
        let count = self.shares.len();
        while self.done < count {
            let i = (self.slot + self.done) % count;
            let task = self.shares[i].0.fetch_add(1, Relaxed);
            if task < Self::first(i + 1, count, self.tasks) {
                return Some(task);
            }
            self.done += 1;
        }
        None
    }
}

/// The system gives no thread.
pub(crate) fn no_thread(error: &io::Error) -> Error {
    Error::Device { backend: "cpu", message: format!("thread: {error}") }
}

impl Pool {
    /// A pool in which `threads` take part, the caller included.
    ///
    /// # Errors
    /// [`Error::Device`] if the system gives no thread.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Share(AtomicUsize::new(0))).collect(),
            stop: AtomicBool::new(false),
            sleep: (1..threads).map(|_| Sleep::default()).collect(),
            began: Instant::now(),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1), busy: AtomicBool::new(false) };
        for slot in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("mlxt-cpu-{slot}")).spawn(move || shared.work(slot));
            pool.workers.push(worker.map_err(|e| no_thread(&e))?);
        }
        Ok(pool)
    }

    /// How many threads take part, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(slot, claims)` on every thread that comes in time; together they are given each of `0..tasks` once.
    /// No two run with the same slot at the same time; slots are below [`Pool::threads`].
    ///
    /// A panic of `body` is passed on after all have stopped.
    pub(crate) fn run(&self, tasks: usize, body: impl Fn(usize, Claims<'_>) + Sync) {
        if tasks <= 1 || self.workers.is_empty() || self.busy.swap(true, Acquire) {
            body(0, Claims::new(&[Share(AtomicUsize::new(0))], tasks, 0));
            return;
        }
        let shares = &*self.shared.shares;
        for (i, share) in shares.iter().enumerate() {
            share.0.store(Claims::first(i, shares.len(), tasks), Relaxed);
        }
        let participate = |slot| body(slot, Claims::new(shares, tasks, slot));
        let job = Job::open(self, &participate);
        body(0, Claims { late: Some(&*self.shared), ..Claims::new(shares, tasks, 0) });
        if let Some(panic) = job.close() {
            resume_unwind(panic);
        }
    }

    /// Fills `out`, rows of `cols`, in parallel pieces of whole rows: `fill(first_row, rows)`. `steps` is the work of
    /// one row; little work is done by the caller alone.
    pub(crate) fn rows(&self, out: &mut [f32], cols: usize, steps: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = out.len() / cols;
        let pieces = rows.min(rows * steps / (SMALL / 2)).clamp(1, 4 * self.threads());
        if rows * steps < SMALL || pieces == 1 {
            fill(0, out);
            return;
        }
        let start = Shareable(out.as_mut_ptr());
        self.run(pieces, |_, claims| {
            for piece in claims {
                let (first, end) = (piece * rows / pieces, (piece + 1) * rows / pieces);
                // SAFETY: pieces do not overlap, lie inside `out`, and each is claimed once.
                let out =
                    unsafe { std::slice::from_raw_parts_mut(start.get().add(first * cols), (end - first) * cols) };
                fill(first, out);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.state.fetch_add(EPOCH, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker cannot have panicked: it catches what its jobs throw.
            let _ = worker.join();
        }
    }
}

/// A pointer that participants of one job share; they write to different places behind it.
#[derive(Clone, Copy)]
pub(crate) struct Shareable(pub(crate) *mut f32);

// SAFETY: only a pointer; every use of it says why the places differ.
unsafe impl Send for Shareable {}
// SAFETY: as above.
unsafe impl Sync for Shareable {}

impl Shareable {
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

type Body = dyn Fn(usize) + Sync;

/// `state`: the job's number in the upper half, whether it can be joined, and how many workers are in it.
const EPOCH: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const ACTIVE: u64 = OPEN - 1;

/// Whether a worker sleeps.
#[derive(Debug, Default)]
struct Sleep {
    state: AtomicU8,
    /// When it was woken, in nanoseconds since the pool began.
    since: AtomicU64,
    place: Place,
}

impl Sleep {
    const AWAKE: u8 = 0;
    const ASLEEP: u8 = 1;
    const WOKEN: u8 = 2;
    /// Woken, and put on another processor.
    const MOVED: u8 = 3;
}

struct Shared {
    state: AtomicU64,
    /// Written by the caller that holds `busy` while no worker is active, read by workers that are.
    job: UnsafeCell<Option<&'static Body>>,
    /// One for each participant; set while no worker is active.
    shares: Box<[Share]>,
    stop: AtomicBool,
    sleep: Vec<Sleep>,
    began: Instant,
    /// The first panic of the job.
    panic: Mutex<Option<Panic>>,
}

// SAFETY: all but `job` is shareable by itself; `job` is written and read at different times, see its comment, and
// `state` orders them.
unsafe impl Sync for Shared {}
// SAFETY: what `job` refers to is `Sync`.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// An open job. Dropping it closes the job and waits for those inside, also when the caller's own part panics.
struct Job<'a> {
    pool: &'a Pool,
}

/// What a thread panicked with.
type Panic = Box<dyn Any + Send>;

impl<'a> Job<'a> {
    /// The caller has set `busy`.
    fn open(pool: &'a Pool, body: &'a (dyn Fn(usize) + Sync)) -> Self {
        let shared = &*pool.shared;
        // SAFETY: only the lifetime changes. Workers use the reference only while they are counted as active, and this
        // job's `drop` waits until none is, before `'a` ends.
        let body = unsafe { std::mem::transmute::<&'a (dyn Fn(usize) + Sync), &'static Body>(body) };
        // SAFETY: `busy` keeps other callers away, and no worker is active between jobs.
        unsafe { *shared.job.get() = Some(body) };
        let epoch = shared.state.load(Relaxed) & !(EPOCH - 1);
        // Sequentially consistent with `Sleep`: a worker about to sleep sees the job, or we see that it sleeps.
        shared.state.store(epoch.wrapping_add(EPOCH) | OPEN, SeqCst);
        for (worker, sleep) in pool.workers.iter().zip(&shared.sleep) {
            if sleep.state.load(SeqCst) == Sleep::ASLEEP {
                sleep.since.store(shared.now(), Relaxed);
                // It may have seen the job by itself meanwhile.
                if sleep.state.compare_exchange(Sleep::ASLEEP, Sleep::WOKEN, SeqCst, Relaxed).is_ok() {
                    worker.thread().unpark();
                }
            }
        }
        Self { pool }
    }

    /// Waits for all who joined, and gives the first panic among the workers.
    fn close(self) -> Option<Panic> {
        self.wait();
        self.pool.shared.panic().take()
    }

    fn wait(&self) {
        let shared = &*self.pool.shared;
        shared.state.fetch_and(!OPEN, SeqCst);
        let mut turns = 0_u32;
        while shared.state.load(Acquire) & ACTIVE != 0 {
            // A worker that lost its core finishes sooner if we give it ours.
            turns += 1;
            if turns.is_multiple_of(4096) { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.wait();
        // If the caller's own part panicked, that is what its caller hears of; the next job starts clean.
        *self.pool.shared.panic() = None;
        self.pool.busy.store(false, Release);
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// By the caller of a job: moves workers that it woke and that should have come by now. Whether any may still have to be.
    fn hurry(&self) -> bool {
        let mut expected = false;
        for sleep in self.sleep.iter().filter(|sleep| sleep.state.load(Acquire) == Sleep::WOKEN) {
            expected = true;
            let is_late = self.now().saturating_sub(sleep.since.load(Relaxed)) > LATE.as_nanos() as u64;
            if is_late && sleep.state.compare_exchange(Sleep::WOKEN, Sleep::MOVED, SeqCst, Relaxed).is_ok() {
                sleep.place.not_here();
            }
        }
        expected
    }

    /// A worker's life.
    fn work(&self, slot: usize) {
        self.sleep[slot - 1].place.is_mine();
        let mut seen = 0;
        loop {
            seen = self.wait(slot, seen);
            if self.stop.load(SeqCst) {
                return;
            }
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: we are counted as active, so the job stays as it is.
            if let Some(body) = unsafe { *self.job.get() }
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(slot)))
            {
                self.panic().get_or_insert(panic);
            }
            self.state.fetch_sub(1, Release);
        }
    }

    fn panic(&self) -> MutexGuard<'_, Option<Panic>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job other than `seen` and gives its number.
    fn wait(&self, slot: usize, seen: u64) -> u64 {
        let current = || Some(self.state.load(SeqCst) / EPOCH).filter(|&epoch| epoch != seen);
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if let Some(epoch) = current() {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        let sleep = &self.sleep[slot - 1];
        let epoch = loop {
            // Each time: it may have been woken for a job that it had seen.
            sleep.state.store(Sleep::ASLEEP, SeqCst);
            match current() {
                Some(epoch) => break epoch,
                None => thread::park(),
            }
        };
        sleep.state.store(Sleep::AWAKE, SeqCst);
        epoch
    }

    /// Joins job `epoch`, unless it is closed already.
    fn enter(&self, epoch: u64) -> bool {
        let joinable = |state: u64| state / EPOCH == epoch && state & OPEN != 0;
        self.state.fetch_update(Acquire, Relaxed, |state| joinable(state).then_some(state + 1)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn counts(pool: &Pool, tasks: usize) -> Vec<u32> {
        let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
        pool.run(tasks, |slot, claims| {
            assert!(slot < pool.threads());
            claims.for_each(|task| {
                counts[task].fetch_add(1, Relaxed);
            });
        });
        counts.into_iter().map(AtomicU32::into_inner).collect()
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..2_000 {
                let tasks = round % 40;
                assert_eq!(counts(&pool, tasks), vec![1; tasks], "{threads} threads");
            }
        }
    }

    #[test]
    fn sleeping_threads_wake_up_and_stop() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            thread::sleep(4 * SPIN);
            let slots = Mutex::new(Vec::new());
            pool.run(3, |slot, claims| {
                claims.for_each(|_| thread::sleep(Duration::from_millis(2)));
                slots.lock().unwrap().push(slot);
            });
            assert!(slots.into_inner().unwrap().len() > 1, "nobody helped");
        }
        thread::sleep(4 * SPIN);
        drop(pool);
    }

    #[test]
    fn callers_from_many_threads_all_finish() {
        let pool = Pool::new(2).unwrap();
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..500).for_each(|_| assert_eq!(counts(&pool, 17), [1; 17])));
            }
        });
    }

    #[test]
    fn a_job_inside_a_job_runs_alone() {
        let pool = Pool::new(2).unwrap();
        pool.run(4, |_, claims| claims.for_each(|_| assert_eq!(counts(&pool, 5), [1; 5])));
    }

    #[test]
    fn panics_pass_on_and_leave_the_pool_usable() {
        for bad in 0..8 {
            let pool = Pool::new(2).unwrap();
            for _ in 0..50 {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    pool.run(8, |_, claims| claims.for_each(|task| assert!(task != bad, "task {bad}")));
                }));
                let message = *result.unwrap_err().downcast::<String>().unwrap();
                assert_eq!(message, format!("task {bad}"));
                assert_eq!(counts(&pool, 9), [1; 9]);
            }
        }
    }

    /// Each of two tasks waits for the other, so that both threads have to come; the pauses end about when a thread falls asleep.
    #[test]
    fn no_call_for_a_thread_that_falls_asleep_is_lost() {
        let pool = Pool::new(2).unwrap();
        for i in 0..2000 {
            thread::sleep(Duration::from_micros(i % 40 * 2));
            let begun = AtomicU32::new(0);
            pool.run(2, |_, claims| {
                for _ in claims {
                    begun.fetch_add(1, SeqCst);
                    let start = Instant::now();
                    while begun.load(SeqCst) < 2 {
                        assert!(start.elapsed() < Duration::from_secs(20), "job {i}: only one thread has come");
                        thread::yield_now();
                    }
                }
            });
        }
    }

    #[test]
    fn rows_are_filled_once_whatever_the_size() {
        let pool = Pool::new(3).unwrap();
        for (rows, cols, steps) in [(1, 5, 1), (7, 3, 1 << 20), (1000, 3, 100), (13, 1, 1 << 14)] {
            let mut out = vec![-1.0; rows * cols];
            pool.rows(&mut out, cols, steps, |first, rows| {
                for (i, row) in rows.chunks_mut(cols).enumerate() {
                    for v in row {
                        *v += (first + i) as f32 + 1.0;
                    }
                }
            });
            let want: Vec<f32> = (0..rows * cols).map(|i| (i / cols) as f32).collect();
            assert_eq!(out, want);
        }
    }
}
