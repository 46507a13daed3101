//! A file that is written from a file, and can be gone on with: see `journal.rs`.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::journal::{Done, Journal, Settings};
use super::target::{BUFFER, permissions};
use crate::input::Identity;

/// Time between two entries in the journal, at least: each waits for the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// What a run that can be gone on with is known by.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    /// Its options.
    pub(crate) settings: Settings,
    /// Its input.
    pub(crate) input: Identity,
}

/// An output that gets its name when it is whole.
pub(super) struct Partial {
    file: BufWriter<File>,
    /// Its name at last.
    path: PathBuf,
    journal: Journal,
    noted: Option<Instant>,
    /// Whether the files beside `path` go when this does.
    temporary: bool,
}

impl Partial {
    /// Begins `path`, or goes on with what an interrupted run has left of it if `resume` says so and there is something.
    pub(super) fn open(path: PathBuf, ticket: Ticket, resume: bool) -> Result<Self> {
        let (partial, journal) = (partial_of(&path), journal_of(&path));
        // A run that ended right after it gave `path` its name may have left the journal alone.
        let found = if resume && partial.exists() { Journal::read(&journal)? } else { None };
        if let Some(found) = &found {
            found.check(&ticket.settings, ticket.input)?;
        }
        let cannot = || format!("cannot write {}", partial.display());
        let mut file = File::options().create(true).write(true).truncate(false).open(&partial).with_context(cannot)?;
        // Where locks are not known there is nothing to wait for.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{} is being written by another run", path.display());
        }
        let length = file.metadata().with_context(cannot)?.len();
        let (done, index) = match found {
            Some(found) if found.done.bytes <= length => (found.done, found.index),
            Some(found) => {
                let (needed, partial) = (found.done.bytes, partial.display());
                bail!(
                    "cannot go on: {partial} has {length} bytes, expected {needed} at least; leave out --resume to begin again"
                );
            }
            None => (Done::default(), None),
        };
        if found_nothing(done) {
            // First of all: an old journal is of bytes that are gone in a moment.
            remove(&journal).with_context(|| format!("cannot remove {}", journal.display()))?;
        }
        file.set_len(done.bytes).and_then(|()| file.seek(SeekFrom::End(0))).with_context(cannot)?;
        #[cfg(unix)]
        if path.exists() {
            file.set_permissions(permissions(&path)).with_context(cannot)?;
        }
        let journal = Journal { settings: ticket.settings, input: ticket.input, done, index };
        let file = BufWriter::with_capacity(BUFFER, file);
        Ok(Self { file, path, temporary: found_nothing(done), journal, noted: None })
    }

    /// How far the run is that this goes on with.
    pub(super) fn done(&self) -> Done {
        self.journal.done
    }

    /// The index of what is written, if its format has one.
    pub(super) fn index(&self) -> Option<&str> {
        self.journal.index.as_deref()
    }

    /// Whether the journal is so new that another entry can wait.
    pub(super) fn is_just_noted(&self) -> bool {
        self.noted.is_some_and(|noted| noted.elapsed() < PAUSE)
    }

    /// Notes how far the run is.
    pub(super) fn note(&mut self, done: Done, index: Option<String>) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        let bytes = self.file.stream_position()?;
        self.journal.done = Done { bytes, ..done };
        self.journal.index = index;
        self.journal.write(&journal_of(&self.path))?;
        self.temporary = false;
        self.noted = Some(Instant::now());
        Ok(())
    }

    /// Writes `bytes` over the first ones.
    pub(super) fn rewrite_start(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(bytes)
    }

    /// Completes it and gives it its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        // Without this, a crash of the machine soon after could leave the name on an empty file.
        self.file.get_ref().sync_all()?;
        fs::rename(partial_of(&self.path), &self.path)?;
        self.temporary = false;
        remove(&journal_of(&self.path))
    }

    /// The file with what is kept for a run that goes on, if anything is.
    pub(super) fn kept(&self) -> Option<PathBuf> {
        (!self.temporary).then(|| partial_of(&self.path))
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.temporary {
            // There is no one left to tell.
            let _ = fs::remove_file(partial_of(&self.path));
        }
    }
}

/// Whether nothing is done.
fn found_nothing(done: Done) -> bool {
    done == Done::default()
}

fn partial_of(path: &Path) -> PathBuf {
    path.with_added_extension("partial")
}

fn journal_of(path: &Path) -> PathBuf {
    path.with_added_extension("resume")
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
