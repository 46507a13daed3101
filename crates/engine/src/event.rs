//! What a listener hears while files are downloaded and texts computed.

/// Something that happened. See [`crate::Builder::progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file's download begins, or begins anew.
    Download {
        /// The file's name within the model.
        file: &'a str,
        /// Its size, where known.
        bytes: Option<u64>,
    },
    /// More of the file has come.
    Received {
        /// The file's name.
        file: &'a str,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// The file is complete and in its place.
    Downloaded {
        /// The file's name.
        file: &'a str,
    },
    /// A source did not have the model, and the next one is tried.
    SourceFailed {
        /// The source.
        source: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A batch is computed.
    Computed {
        /// Texts of this call that are done.
        done: usize,
        /// Texts of this call.
        total: usize,
    },
}
