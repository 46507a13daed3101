//! What takes long to make on disk, so that only a program's first start on a machine waits for it: compiled kernels, and which of
//! them are the fastest.
//!
//! An entry is named by everything it depends on and begins with a checksum of its content. What is damaged, missing
//! or unreadable is as if it had never been there; what cannot be written is made again next time.
//!
//! Of several processes that lack the same entry one makes it, and the others wait for it: a study starts its workers side by
//! side. The lock is the system's, so whoever ends lets go of it, however it ends.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mlxt_backend::Result;
use sha2::{Digest, Sha256};

/// Bytes of a checksum.
const CHECKSUM: usize = 32;
/// How long one that makes an entry is waited for: many times what the longest takes, for it may have been stopped.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A folder of entries.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The cache in `folder`, or in the user's folder for such things. Where there is none, nothing is kept.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder: folder.or_else(user_folder) }
    }

    /// The content of an entry, from the cache or from `make`.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get(&self, entry: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let Some(folder) = &self.folder else { return make() };
        let path = folder.join(entry);
        if let Some(content) = read(&path) {
            return Ok(content);
        }
        let claim = folder.join(format!("{entry}.lock"));
        let held = lock(&claim, PATIENCE);
        // Whoever held it before may have made it.
        let content = read(&path).map_or_else(|| make().inspect(|content| write(&path, content)), Ok);
        // It saves time and guards nothing: those who wait for it need its name no more, and then find the entry.
        let _ = fs::remove_file(claim);
        drop(held);
        content
    }

    /// Forgets an entry that turned out to be of no use.
    pub(crate) fn forget(&self, entry: &str) {
        if let Some(folder) = &self.folder {
            // What cannot be removed is written over.
            let _ = fs::remove_file(folder.join(entry));
        }
    }
}

/// A name for what is made from these.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut name = String::new();
    for byte in hash.finalize().iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn user_folder() -> Option<PathBuf> {
    let given = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let caches = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    Some(caches?.join("mlxt").join("cuda"))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (checksum, content) = bytes.split_at_checked(CHECKSUM)?;
    (!content.is_empty() && checksum == Sha256::digest(content).as_slice()).then(|| content.to_vec())
}

/// A lock that ends with the file; none where there can be none, or another holds it for longer than `patience`.
fn lock(path: &Path, patience: Duration) -> Option<File> {
    fs::create_dir_all(path.parent()?).ok()?;
    let file = File::options().create(true).append(true).open(path).ok()?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
}

/// Appears as a whole or not at all, whoever else writes it.
fn write(path: &Path, content: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let attempt = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&Sha256::digest(content))?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    // A full or read-only disk costs the next start its time, not this one its result.
    let _ = attempt();
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn code_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().join("deep/er")));
        assert_eq!(cache.get("a", || Ok(vec![1, 2, 3])).unwrap(), [1, 2, 3]);
        assert_eq!(cache.get("a", || Ok(vec![9])).unwrap(), [1, 2, 3]);
        assert_eq!(cache.get("b", || Ok(vec![9])).unwrap(), [9]);
    }

    #[test]
    fn code_is_made_once_by_all_who_want_it_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let (made, ready) = (AtomicUsize::new(0), Barrier::new(4));
        let get = || {
            let cache = Cache::new(Some(folder.path().to_owned()));
            ready.wait();
            let make = || Ok(vec![made.fetch_add(1, Ordering::Relaxed) as u8; 1 << 20]);
            assert_eq!(cache.get("a", make).unwrap(), vec![0; 1 << 20]);
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(get))));
        assert_eq!(made.into_inner(), 1);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a"]);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let held = lock(&path, Duration::ZERO);
        assert!(held.is_some() && lock(&path, Duration::ZERO).is_none());
        drop(held);
        assert!(lock(&path, Duration::ZERO).is_some());
    }

    #[test]
    fn who_cannot_make_it_leaves_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().to_owned()));
        assert!(cache.get("a", || Err(crate::ffi::failure(String::new()))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(cache.get("a", || Ok(vec![1])).unwrap(), [1]);
    }

    #[test]
    fn damaged_code_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().to_owned()));
        let path = folder.path().join("a");
        cache.get("a", || Ok(vec![1; 100])).unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..0], &whole[..20], &whole[..CHECKSUM], &whole[..whole.len() - 1]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.get("a", || Ok(vec![2; 5])).unwrap(), [2; 5], "{} bytes", damaged.len());
        }
        let mut flipped = fs::read(&path).unwrap();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(cache.get("a", || Ok(vec![3; 5])).unwrap(), [3; 5]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = Cache::new(Some(file.join("below")));
        assert_eq!(cache.get("a", || Ok(vec![1])).unwrap(), [1]);
    }

    #[test]
    fn keys_depend_on_every_part_and_where_it_ends() {
        let keys = [key(&["ab", "c"]), key(&["a", "bc"]), key(&["abc"]), key(&["ab", "c", ""])];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn forgotten_code_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().to_owned()));
        cache.get("a", || Ok(vec![1])).unwrap();
        cache.forget("a");
        assert_eq!(cache.get("a", || Ok(vec![2])).unwrap(), [2]);
    }
}
