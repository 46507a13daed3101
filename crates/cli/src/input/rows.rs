//! Rows of an input, whatever its format: gathered in chunks, counted, and left out where they cannot be used and the
//! user wants that.

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::{BadRow, Extent, Identity, Reader};
use crate::progress::Progress;

/// What becomes of a row that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// It ends the work.
    Stop,
    /// It is reported and left out.
    Skip,
}

/// How much a chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Rows.
    pub(crate) rows: usize,
    /// Bytes of text; the last row may go over it.
    pub(crate) bytes: usize,
}

/// A row of the input. As a string it is its first text.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its place in the input, from 0 on. Rows that are left out count.
    pub(crate) index: u64,
    /// The line it begins in, or its row, from 1 on.
    number: u64,
    /// A text for each column.
    pub(crate) fields: Vec<String>,
}

/// A stream of rows.
pub(crate) struct Rows {
    reader: Box<dyn Reader>,
    /// What a row is called in its file, and the file's name; none for arguments.
    place: Option<(&'static str, String)>,
    extent: Extent,
    identity: Option<Identity>,
    on_error: OnError,
    progress: Progress,
    read: u64,
    skipped: u64,
}

/// Rows that were given as arguments.
struct Arguments {
    rows: std::vec::IntoIter<Vec<String>>,
    number: u64,
}

impl AsRef<str> for Row {
    fn as_ref(&self) -> &str {
        self.field(0)
    }
}

impl Row {
    /// Its text in a column.
    pub(crate) fn field(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", String::as_str)
    }
}

impl Rows {
    pub(super) fn of_arguments(rows: Vec<Vec<String>>, on_error: OnError, progress: &Progress) -> Self {
        let extent = Extent::Rows(rows.len() as u64);
        let reader = Box::new(Arguments { rows: rows.into_iter(), number: 0 });
        let progress = progress.clone();
        Self { reader, place: None, extent, identity: None, on_error, progress, read: 0, skipped: 0 }
    }

    pub(super) fn of_file(
        reader: Box<dyn Reader>,
        place: (&'static str, String),
        extent: Extent,
        identity: Option<Identity>,
        on_error: OnError,
        progress: &Progress,
    ) -> Self {
        let progress = progress.clone();
        Self { reader, place: Some(place), extent, identity, on_error, progress, read: 0, skipped: 0 }
    }

    /// The next rows that can be read, as many as `limit` allows; none at the end.
    pub(crate) fn chunk(&mut self, limit: Limit) -> Result<Vec<Row>> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < limit.rows && bytes < limit.bytes {
            match self.reader.read() {
                Ok(None) => break,
                Ok(Some(fields)) => {
                    bytes += fields.iter().map(String::len).sum::<usize>();
                    chunk.push(Row { index: self.read, number: self.reader.number(), fields });
                }
                Err(error) if self.skips() && error.is::<BadRow>() => self.report(&error),
                Err(error) => return Err(error),
            }
            self.read += 1;
        }
        Ok(chunk)
    }

    /// Leaves `row` out because of `error`.
    pub(crate) fn skip(&mut self, row: &Row, error: anyhow::Error) {
        let error = self.placed(row, error);
        self.report(&error);
    }

    /// `error` with the place of its row.
    pub(crate) fn placed(&self, row: &Row, error: anyhow::Error) -> anyhow::Error {
        match &self.place {
            Some((unit, name)) => error.context(format!("{unit} {} of {name}", row.number)),
            None => error,
        }
    }

    /// Whether rows that cannot be used are left out.
    pub(crate) fn skips(&self) -> bool {
        self.on_error == OnError::Skip
    }

    /// Goes past `read` rows, of which `skipped` were left out when they were read first.
    pub(crate) fn go_on_after(&mut self, read: u64, skipped: u64) -> Result<()> {
        while self.read < read {
            match self.reader.read() {
                Ok(Some(_)) => {}
                Ok(None) => bail!("the input ends after {} rows, of which {read} were read before", self.read),
                Err(error) if error.is::<BadRow>() => {}
                Err(error) => return Err(error),
            }
            self.read += 1;
        }
        self.skipped = skipped;
        self.progress.begin_at(self.fraction());
        Ok(())
    }

    /// Rows read so far, those left out included.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Rows left out so far.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What tells the file from others, if it can be read again.
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The part of the input that has been read, 0 to 1, where the total is known.
    pub(crate) fn fraction(&self) -> Option<f64> {
        let (done, total) = match &self.extent {
            Extent::Unknown => return None,
            Extent::Rows(total) => (self.read, *total),
            Extent::Bytes { read, total } => (read.get(), *total),
        };
        (total > 0).then(|| (done as f64 / total as f64).min(1.0))
    }

    /// Says how many rows were left out, if any.
    pub(crate) fn summary(&self) {
        if self.skipped > 0 {
            self.progress.warn(&format!("{} of {} rows skipped", self.skipped, self.read));
        }
    }

    fn report(&mut self, error: &anyhow::Error) {
        self.skipped += 1;
        self.progress.warn(&format!("skipped: {}", crate::chain(error)));
    }
}

impl Reader for Arguments {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        self.number += 1;
        Ok(self.rows.next())
    }

    fn number(&self) -> u64 {
        self.number
    }
}
