//! What can be wrong with the study's own files. What goes wrong with a worker is no error here but a row of the records.

use std::path::PathBuf;

/// One way the world was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done: `read`, `write`, `create`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A plan, or a table it is read from, asks for what there is not.
    #[error("{name}: {what}")]
    Plan {
        /// The plan, or the entry.
        name: String,
        /// What is wrong and what there is.
        what: String,
    },
    /// A line of a record file is not a record, or was changed after it was written.
    #[error("{path}:{line}: {what}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A folder of records has none.
    #[error("{path}: no .jsonl file in it")]
    NoRecords {
        /// The folder.
        path: PathBuf,
    },
    /// What is to be a record file is something else that has a name.
    #[error("{path} is no regular file but a folder, a pipe or a device: name a file of records")]
    NoFile {
        /// Its name.
        path: PathBuf,
    },
    /// A record file belongs to another run as long as that is writing it.
    #[error("{path} is being written by another run: wait for its end, or name another file")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A figure could not be drawn.
    #[error("figure {figure}: {what}")]
    Figure {
        /// Its name.
        figure: String,
        /// What the drawing library says.
        what: String,
    },
    /// The same run in two of the files that are to be one.
    #[error("{path}: run {run} is in another of the files too")]
    Duplicate {
        /// The later file.
        path: PathBuf,
        /// The run.
        run: String,
    },
}

/// A result of the study.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Says which file an input or output error is about.
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
