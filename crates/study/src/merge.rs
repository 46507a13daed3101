//! Records of several machines joined into one file.

use std::path::Path;

use crate::record::{Records, write_new};
use crate::{Error, Result};

/// Reads each file or folder and writes all their lines, as they are, into the new file `out`: all or nothing.
///
/// # Errors
/// As [`Records::read`] of each; a run that two of them hold; `out` being there already; the disk's own.
pub fn merge<P: AsRef<Path>>(paths: &[P], out: &Path) -> Result<Records> {
    let (mut all, mut lines) = (Records::default(), String::new());
    for path in paths.iter().map(AsRef::as_ref) {
        let mut more = Records::default();
        // Numbers that were read and written again might be their neighbours then.
        more.add(path, |text| text.lines().for_each(|line| lines.extend([line, "\n"])))?;
        if let Some(twice) = more.runs.iter().find(|run| all.runs.iter().any(|known| known.id == run.id)) {
            return Err(Error::Duplicate { path: path.to_owned(), run: twice.id.clone() });
        }
        all.runs.extend(more.runs);
        all.rows.extend(more.rows);
    }
    write_new(out, &lines)?;
    Ok(all)
}
