//! A folder that appears when it is whole: it is made beside its name, as `NAME.partial/new`, and gets the name at the end.
//!
//! What is left by a run that was killed lies in `NAME.partial` and is used or cleared by the next.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::Usage;

/// Where a folder named `target` will lie, links followed: as much of the way as there is, then what is still to be made.
///
/// # Errors
/// [`Usage`] for what no new folder can take the place of: the folder this program runs in or one above it, a root, a
/// link to nothing.
pub(crate) fn resolve(target: &Path) -> Result<PathBuf> {
    let name = target.display();
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    for there in target.ancestors() {
        match fs::canonicalize(here(there)) {
            Ok(found) => {
                let rest = target.strip_prefix(there).unwrap_or(Path::new(""));
                if rest.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
                    return Err(Usage::error(format!("{name} leads through a folder that is not there")));
                }
                let found: PathBuf = found.components().chain(rest.components()).collect();
                let current = std::env::current_dir().and_then(fs::canonicalize);
                if found.parent().is_none() {
                    return Err(Usage::error(format!("{name} is a root, which cannot be replaced: name a new folder")));
                }
                if current.is_ok_and(|current| current.starts_with(&found)) {
                    let what = "is the current folder or holds it, and cannot be replaced: name a new folder";
                    return Err(Usage::error(format!("{name} {what}")));
                }
                return Ok(found);
            }
            // It is there, and leads nowhere.
            Err(error) if fs::symlink_metadata(there).is_ok() => {
                return Err(Usage::error(format!("{} is a link that cannot be followed: {error}", there.display())));
            }
            Err(_) => {}
        }
    }
    Ok(target.to_owned())
}

/// The folder beside the name, ours until it is dropped.
pub(crate) struct Partial {
    folder: PathBuf,
    /// Open as long as no other run may work here.
    lock: File,
}

impl Partial {
    /// Makes or takes over the folder beside `target`.
    ///
    /// # Errors
    /// Another run that has it; the disk's own.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        let folder = target.with_added_extension("partial");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = folder.join("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        // Where locks are not known there is nothing to wait for.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{} is being made by another run: wait for it", target.display());
        }
        Ok(Self { folder, lock })
    }

    /// Something in it that stays from run to run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder that will get the name, empty.
    pub(crate) fn begin(&self) -> Result<PathBuf> {
        let new = self.path("new");
        remove(&new)?;
        remove(&self.path("old"))?;
        fs::create_dir(&new).with_context(|| format!("cannot create {}", new.display()))?;
        Ok(new)
    }

    /// Gives it the name, in place of what has it.
    pub(crate) fn finish(self, target: &Path) -> Result<()> {
        let (new, old) = (self.path("new"), self.path("old"));
        if target.exists() {
            fs::rename(target, old).with_context(|| format!("cannot replace {}", target.display()))?;
        }
        fs::rename(new, target).with_context(|| format!("cannot create {}", target.display()))?;
        self.clear()
    }

    /// Removes all of it.
    pub(crate) fn clear(self) -> Result<()> {
        let Self { folder, lock } = self;
        remove(&folder).or_else(|_| {
            // There are systems on which nothing that is open can be removed.
            drop(lock);
            remove(&folder)
        })
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a.b");
        let partial = Partial::open(&target).unwrap();
        assert!(Partial::open(&target).is_err(), "two at once");
        fs::write(partial.begin().unwrap().join("half"), "").unwrap();
        fs::write(partial.path("kept"), "").unwrap();
        drop(partial);
        assert!(!target.exists());

        let partial = Partial::open(&target).unwrap();
        assert!(partial.path("kept").exists());
        fs::create_dir(&target).unwrap();
        fs::write(target.join("before"), "").unwrap();
        let new = partial.begin().unwrap();
        assert!(!new.join("half").exists());
        fs::write(new.join("whole"), "").unwrap();
        partial.finish(&target).unwrap();
        assert!(target.join("whole").exists() && !target.join("before").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
