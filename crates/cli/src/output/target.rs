//! The place results are written to: standard output, a new file, or something else that has a path (a pipe, a device).
//!
//! A new file is written beside its final name and renamed at the end, so that a failed or killed run leaves nothing
//! under that name; with a journal (`partial.rs`) another run can go on with it. A reader that closes standard output early (`| head`) has what it wanted: see [`StdoutClosed`].

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::journal::Done;
use super::partial::{Partial, Ticket};

/// The exit status of who was ended by a signal, as shells have it for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Bytes gathered before a write.
pub(super) const BUFFER: usize = 1 << 17;

/// Standard output was closed by its reader. Not a failure: the program ends at once, quietly, with status 0.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

/// A destination.
pub(crate) struct Target {
    kind: Kind,
    name: String,
}

enum Kind {
    Stdout(BufWriter<io::Stdout>),
    /// A file that gets the name `path` at the end.
    New {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
    /// The same, with a journal: another run can go on with it.
    Partial(Partial),
    Existing(BufWriter<File>),
}

impl std::fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for StdoutClosed {}

impl Target {
    /// Opens `path`, or standard output.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self> {
        let Some(path) = path else {
            let kind = Kind::Stdout(BufWriter::with_capacity(BUFFER, io::stdout()));
            return Ok(Self { kind, name: "standard output".into() });
        };
        let name = path.display().to_string();
        let kind = Kind::open(path).with_context(|| format!("cannot write {name}"))?;
        Ok(Self { kind, name })
    }

    /// Opens `path` with a journal, going on with what is there if `resume` says so. What is no file (a pipe, a device)
    /// has none.
    pub(super) fn journaled(path: PathBuf, ticket: Ticket, resume: bool) -> Result<Self> {
        let path = fs::canonicalize(&path).unwrap_or(path);
        if fs::metadata(&path).is_ok_and(|m| !m.is_file()) {
            return Self::open(Some(path));
        }
        let name = path.display().to_string();
        Ok(Self { kind: Kind::Partial(Partial::open(path, ticket, resume)?), name })
    }

    /// Everything that could be wrong before the first result has been looked at.
    pub(super) fn begin(&mut self, device: Option<&str>) -> Result<()> {
        if let Kind::Partial(partial) = &mut self.kind { partial.begin(device) } else { Ok(()) }
    }

    /// How far the run is that this goes on with: not at all for a new one.
    pub(super) fn done(&self) -> Done {
        if let Kind::Partial(partial) = &self.kind { partial.done() } else { Done::default() }
    }

    /// Notes how far the run is, where it can be gone on with.
    pub(super) fn note(&mut self, done: Done, index: impl FnOnce() -> Result<Option<String>>) -> Result<()> {
        let Kind::Partial(partial) = &mut self.kind else { return Ok(()) };
        if partial.is_just_noted() {
            return Ok(());
        }
        partial.note(done, index()?).with_context(|| format!("cannot write {}", self.name))
    }

    /// The index of the run that this goes on with, if its format has one.
    pub(super) fn index(&self) -> Option<&str> {
        if let Kind::Partial(partial) = &self.kind { partial.index() } else { None }
    }

    /// The file that is kept for a run that goes on, if there is one.
    pub(super) fn kept(&self) -> Option<PathBuf> {
        if let Kind::Partial(partial) = &self.kind { partial.kept() } else { None }
    }

    /// Whether it is a new file, whose start can be written again.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::New { .. } | Kind::Partial(_))
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.writer().write_all(bytes);
        self.check(result)
    }

    /// Passes on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let result = self.writer().flush();
        self.check(result)
    }

    /// Writes `bytes` over the first ones of a new file.
    pub(crate) fn rewrite_start(&mut self, bytes: &[u8]) -> Result<()> {
        let result = match &mut self.kind {
            // Seeking flushes the buffer first.
            Kind::New { file, .. } => file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)),
            Kind::Partial(partial) => partial.rewrite_start(bytes),
            Kind::Stdout(_) | Kind::Existing(_) => Ok(()),
        };
        self.check(result)
    }

    /// Completes it; a new file gets its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let renamed = match self.kind {
            Kind::New { file, path } => file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| {
                // Without this, a crash of the machine soon after could leave the name on an empty file.
                file.as_file().sync_all()?;
                file.persist(&path).map(drop).map_err(|e| e.error)
            }),
            Kind::Partial(partial) => partial.finish(),
            Kind::Stdout(_) | Kind::Existing(_) => Ok(()),
        };
        renamed.with_context(|| format!("cannot write {}", self.name))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.kind {
            Kind::Stdout(stdout) => stdout,
            Kind::New { file, .. } => file,
            Kind::Partial(partial) => partial,
            Kind::Existing(file) => file,
        }
    }

    fn check(&self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && matches!(self.kind, Kind::Stdout(_)) => {
                Err(StdoutClosed.into())
            }
            other => other.with_context(|| format!("cannot write {}", self.name)),
        }
    }
}

impl Kind {
    fn open(path: PathBuf) -> io::Result<Self> {
        // A link keeps being one: what it points to is replaced. What does not exist yet has no canonical name.
        let path = fs::canonicalize(&path).unwrap_or(path);
        if fs::metadata(&path).is_ok_and(|m| !m.is_file()) {
            // Renaming a file over a device or a pipe would destroy it.
            let file = File::options().write(true).open(&path)?;
            return Ok(Self::Existing(BufWriter::with_capacity(BUFFER, file)));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(permissions(&path));
        let file = gone_when_interrupted(|| builder.tempfile_in(folder))?;
        Ok(Self::New { file: BufWriter::with_capacity(BUFFER, file), path })
    }
}

/// A file that nobody could go on with: a signal that ends the program takes it along.
fn gone_when_interrupted(create: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<NamedTempFile> {
    static HANDLER: Once = Once::new();
    static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    HANDLER.call_once(|| {
        let end = || {
            for path in UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                // What is complete has another name by now.
                let _ = fs::remove_file(path);
            }
            process::exit(INTERRUPTED);
        };
        // Without it the system ends the program, and the file stays.
        let _ = ctrlc::set_handler(end);
    });
    // Whoever is interrupted now waits until it is known that there is a file.
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = create()?;
    unfinished.push(file.path().to_owned());
    Ok(file)
}

/// Those of the file that will be replaced, or what a new file gets; a temporary file alone would be its owner's only.
#[cfg(unix)]
pub(super) fn permissions(path: &Path) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).map_or_else(|_| fs::Permissions::from_mode(0o666), |m| m.permissions())
}
