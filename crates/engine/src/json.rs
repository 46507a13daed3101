//! Reads the small JSON files beside a model, with errors that name the file.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The file, or `None` if there is none.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Json`] if it does not hold a `T`.
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Json { path: path.into(), source })
}
