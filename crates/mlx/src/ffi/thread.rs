//! The thread that MLX runs on. Its streams and its cache of compiled functions belong to the thread that made them, so
//! one thread makes every call, and the others wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mlxt_backend::{Error, Result};

/// Work, and whom to tell when it is done. They are dropped in this order: whoever waits goes on when nothing of the work
/// is left.
struct Job {
    work: Box<dyn FnOnce() + Send>,
    done: Option<SyncSender<()>>,
}

/// How long the thread looks for work before it sleeps: what reads a result comes right behind what computes it, and waking up
/// takes longer than that.
const AWAKE: Duration = Duration::from_micros(50);

/// The next job; none when nobody can give one any more.
fn next(given: &Receiver<Job>) -> Option<Job> {
    let asleep = Instant::now() + AWAKE;
    loop {
        match given.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Empty) if Instant::now() < asleep => std::hint::spin_loop(),
            Err(_) => return given.recv().ok(),
        }
    }
}

/// The thread. It ends with the process.
pub(crate) struct Thread {
    jobs: Mutex<Sender<Job>>,
    stopped: AtomicBool,
}

impl Thread {
    pub(crate) fn start() -> Result<Self> {
        let (jobs, given) = channel::<Job>();
        let run = move || {
            while let Some(Job { work, done }) = next(&given) {
                // Work that panics is lost; whoever waits for it finds no result.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                drop(done);
            }
        };
        let started = thread::Builder::new().name("mlx".into()).spawn(run);
        let failed = |e: std::io::Error| Error::Device { backend: "mlx", message: format!("no thread for MLX: {e}") };
        started.map_err(failed)?;
        Ok(Self { jobs: Mutex::new(jobs), stopped: AtomicBool::new(false) })
    }

    /// Runs `work` there and waits for what it gives.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let result = Mutex::new(None);
        let (done, wait) = sync_channel(1);
        let slot = &result;
        let work: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
            let value = work();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        // SAFETY: the work may borrow from the caller, who stays below until `done` is dropped. That happens after the
        // work was run or dropped: on the thread, by the order of a job's fields; here, if it cannot be sent, likewise.
        let work: Box<dyn FnOnce() + Send + 'static> = unsafe { std::mem::transmute(work) };
        self.send(Job { work, done: Some(done) });
        // Nothing is ever sent: this returns when the other end is gone.
        let _ = wait.recv();
        let lost = || Error::Device { backend: "mlx", message: "the thread of MLX failed".into() };
        result.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(|| Err(lost()))
    }

    /// Runs `work` there some time.
    pub(crate) fn post(&self, work: impl FnOnce() + Send + 'static) {
        self.send(Job { work: Box::new(work), done: None });
    }

    /// Lets the work that was given end, and no other begin. The thread stays, for what belongs to it must not be destroyed
    /// while the process ends.
    pub(crate) fn stop(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let (done, wait) = sync_channel::<()>(1);
        self.post(move || {
            drop(done);
            loop {
                thread::park();
            }
        });
        let _ = wait.recv();
    }

    fn send(&self, job: Job) {
        // A thread that is gone runs nothing: the job is dropped.
        let _ = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_borrows_from_its_caller_and_errors_come_back() {
        let thread = Thread::start().unwrap();
        let values = [1, 2, 3];
        assert_eq!(thread.run(|| Ok(values.iter().sum::<i32>())), Ok(6));
        let error = Error::Empty { found: "nothing".into() };
        assert_eq!(thread.run::<()>(|| Err(error.clone())), Err(error));
    }

    #[test]
    fn work_that_panics_is_an_error_and_the_thread_goes_on() {
        let thread = Thread::start().unwrap();
        let lost = thread.run::<()>(|| std::panic::panic_any(1));
        assert!(matches!(lost, Err(Error::Device { backend: "mlx", .. })));
        assert_eq!(thread.run(|| Ok(7)), Ok(7));
    }

    #[test]
    fn callers_on_many_threads_get_their_own_answers() {
        let mlx = Thread::start().unwrap();
        thread::scope(|s| {
            for i in 0..8 {
                let mlx = &mlx;
                s.spawn(move || (0..200).for_each(|k| assert_eq!(mlx.run(|| Ok(i * 1000 + k)), Ok(i * 1000 + k))));
            }
        });
    }
}
