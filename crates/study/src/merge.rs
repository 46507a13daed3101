//! Records of several machines joined into one file.

use std::path::Path;

use crate::record::Records;
use crate::{Error, Result};

/// Reads each file or folder and writes everything into the new file `out`: all or nothing.
///
/// # Errors
/// As [`Records::read`] of each; a run that two of them hold; `out` being there already; the disk's own.
pub fn merge<P: AsRef<Path>>(paths: &[P], out: &Path) -> Result<Records> {
    let mut all = Records::default();
    for path in paths.iter().map(AsRef::as_ref) {
        let more = Records::read(path)?;
        if let Some(twice) = more.runs.iter().find(|run| all.runs.iter().any(|known| known.id == run.id)) {
            return Err(Error::Duplicate { path: path.to_owned(), run: twice.id.clone() });
        }
        all.runs.extend(more.runs);
        all.rows.extend(more.rows);
    }
    all.write(out)?;
    Ok(all)
}
