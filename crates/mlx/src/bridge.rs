//! The bridge as a file that can be loaded: the embedded one, or one compiled now and kept for the next time.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::compiler::{self, Failure, SUFFIX};
use crate::{Installation, LoadError};

mod embedded {
    //! What build.rs compiled.
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// The bridge for this MLX, in `cache`.
///
/// # Errors
/// No compiler, sources that do not compile, a folder that cannot be used.
pub(crate) fn bridge(installation: &Installation, version: &str, cache: &Path) -> Result<PathBuf, LoadError> {
    let embedded = embedded::BRIDGE.filter(|(built, _)| *built == version).map(|(_, bytes)| bytes);
    library(&compiler::BRIDGE, version, Some(&installation.include()), embedded, cache)
}

/// What stands in for the wheel's BLAS, in `cache`.
///
/// # Errors
/// As [`bridge`].
pub(crate) fn blas(cache: &Path) -> Result<PathBuf, LoadError> {
    library(&compiler::BLAS, "any", None, embedded::BLAS, cache)
}

/// A library of `sources`: from the cache, from this program, or compiled.
fn library(
    sources: &[(&str, &str)],
    version: &str,
    include: Option<&Path>,
    embedded: Option<&[u8]>,
    cache: &Path,
) -> Result<PathBuf, LoadError> {
    let (first, _) = sources[0];
    let name = Path::new(first).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = cache.join(format!("{name}-{version}-{}.{SUFFIX}", digest(sources)));
    let failed = |error: std::io::Error| LoadError::Cache { folder: cache.to_owned(), message: error.to_string() };
    private(cache)?;
    if file.is_file() {
        return Ok(file);
    }
    // Complete under its own name or not there at all: another process may be here too.
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(cache).map_err(failed)?;
    let made = work.path().join("made");
    if let Some(bytes) = embedded {
        fs::write(&made, bytes).map_err(failed)?;
    } else {
        for (name, text) in sources {
            fs::write(work.path().join(name), text).map_err(failed)?;
        }
        let compiled = compiler::compile(&work.path().join(first), include, &made);
        compiled.map_err(|failure| not_compiled(failure, version))?;
    }
    fs::rename(&made, &file).map_err(failed)?;
    Ok(file)
}

fn not_compiled(failure: Failure, version: &str) -> LoadError {
    let version = version.to_owned();
    match failure {
        Failure::Missing(program) => LoadError::NoCompiler { version, program: program.to_string_lossy().into_owned() },
        Failure::Failed(message) => {
            let first = message.lines().find(|line| line.contains("error")).unwrap_or("no reason was given");
            LoadError::Compile { version, message: first.to_owned() }
        }
    }
}

/// That `folder` is there and nobody else can write to it: what lies in it is going to be executed.
fn private(folder: &Path) -> Result<(), LoadError> {
    let failed = |message: String| LoadError::Cache { folder: folder.to_owned(), message };
    fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let own = |error: std::io::Error| failed(format!("not a folder of this user's own ({error})"));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(own)?;
        // A file made now belongs to whom this process runs as.
        let probe = tempfile::NamedTempFile::new_in(folder).map_err(own)?;
        let owner = |path: &Path| fs::metadata(path).map(|m| m.uid()).map_err(own);
        if owner(folder)? != owner(probe.path())? {
            return Err(failed("belongs to another user".into()));
        }
    }
    Ok(())
}

/// Names sources, and how they are compiled, by their contents.
fn digest(sources: &[(&str, &str)]) -> String {
    let mut hash = Sha256::new();
    for (name, text) in sources {
        hash.update(name);
        hash.update(text);
    }
    hash.update(include_str!("compiler.rs"));
    let first = hash.finalize().iter().take(8).fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    format!("{first:016x}")
}
