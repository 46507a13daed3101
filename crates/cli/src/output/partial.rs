//! A file that is written from a file, and can be gone on with: see `journal.rs`.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::journal::{Done, Journal, Loaded, Settings};
use super::target::BUFFER;
#[cfg(unix)]
use super::target::permissions;
use crate::input::Identity;
use crate::model::ModelSource;

/// Time between two entries in the journal, at least: each waits for the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// What a run that can be gone on with is known by.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    /// Its options.
    pub(crate) settings: Settings,
    /// Its input.
    pub(crate) input: Identity,
    /// Its model.
    pub(crate) model: ModelSource,
}

/// An output that gets its name when it is whole.
pub(super) struct Partial {
    file: BufWriter<File>,
    /// Its name at last.
    path: PathBuf,
    journal: Journal,
    model: ModelSource,
    noted: Option<Instant>,
    /// Whether the files beside `path` go when this does.
    temporary: bool,
}

impl Partial {
    /// Opens `path`, to go on with what an interrupted run has left of it if `resume` says so and there is something. Nothing of
    /// that is touched before [`Partial::begin`].
    pub(super) fn open(path: PathBuf, ticket: Ticket, resume: bool) -> Result<Self> {
        let (partial, journal) = (partial_of(&path), journal_of(&path));
        // Before anything is made: it may be no journal.
        Journal::read(&journal)?;
        let file = locked(&partial, &path)?;
        let length = file.metadata().with_context(|| format!("cannot write {}", partial.display()))?.len();
        let left = Journal::read(&journal)?;
        if length > 0 && left.is_none() {
            let (partial, journal) = (partial.display(), journal.display());
            bail!("{partial} is there and may not be ours, for there is no {journal}: move it away, or delete it");
        }
        let temporary = length == 0 && left.is_none();
        // A run that ended right after it gave `path` its name may have left the journal alone.
        let found = left.filter(|_| resume && length > 0);
        if let Some(found) = &found {
            found.check(&ticket.settings, ticket.input)?;
            if found.done.bytes > length {
                let (needed, partial) = (found.done.bytes, partial.display());
                bail!(
                    "cannot go on: {partial} has {length} bytes, expected {needed} at least; leave out --resume to begin again"
                );
            }
        }
        let (done, index, loaded) = found.map(|found| (found.done, found.index, found.loaded)).unwrap_or_default();
        let journal = Journal { settings: ticket.settings, input: ticket.input, loaded, done, index };
        let file = BufWriter::with_capacity(BUFFER, file);
        Ok(Self { file, path, temporary, journal, model: ticket.model, noted: None })
    }

    /// Cuts off what nobody goes on with. The model is loaded, on `device` if it computes: what else there is to refuse has
    /// been refused.
    pub(super) fn begin(&mut self, device: Option<&str>) -> Result<()> {
        let cannot = || format!("cannot write {}", partial_of(&self.path).display());
        let loaded = Loaded { model: self.model.files()?, device: device.map(str::to_owned) };
        if found_nothing(self.journal.done) {
            self.journal.loaded = loaded;
            // First of all: an old journal is of bytes that are gone in a moment.
            self.journal.write(&journal_of(&self.path)).with_context(cannot)?;
            self.temporary = true;
        } else {
            self.journal.check_loaded(&loaded)?;
        }
        let file = self.file.get_mut();
        file.set_len(self.journal.done.bytes).and_then(|()| file.seek(SeekFrom::End(0))).with_context(cannot)?;
        #[cfg(unix)]
        if self.path.exists() {
            file.set_permissions(permissions(&self.path)).with_context(cannot)?;
        }
        Ok(())
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
            let _ = fs::remove_file(journal_of(&self.path));
        }
    }
}

/// The file that becomes `path`, for this run alone.
fn locked(partial: &Path, path: &Path) -> Result<File> {
    loop {
        let file = File::options().create(true).write(true).truncate(false).open(partial);
        let file = file.with_context(|| format!("cannot write {}", partial.display()))?;
        // Where locks are not known there is nothing to wait for.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{} is being written by another run: wait for it, or name another file", path.display());
        }
        // Another run may have ended meanwhile, and given the file its name at last.
        if is_called(&file, partial) {
            return Ok(file);
        }
    }
}

/// Whether an open file is the one of that name.
#[cfg(unix)]
fn is_called(file: &File, name: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|open| fs::metadata(name).is_ok_and(|named| place(open) == place(named)))
}

/// What is open cannot be renamed there.
#[cfg(not(unix))]
fn is_called(_: &File, _: &Path) -> bool {
    true
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

/// All files that are written for `path`.
pub(crate) fn written(path: &Path) -> [PathBuf; 3] {
    [path.to_owned(), partial_of(path), journal_of(path)]
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
