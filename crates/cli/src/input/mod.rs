//! Where texts come from: arguments, or a file of lines, JSON lines, CSV or Parquet, always as a stream.
//!
//! A file is never held in memory: readers give one row at a time and [`Rows::chunk`] gathers as many as one round of
//! work takes. Every error names the file and the line (or row) it was found in. One format per file beside this one.

mod csv;
mod jsonl;
mod pages;
mod parquet;
mod rows;
mod text;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::args::Usage;
use crate::output;
use crate::progress::Progress;
pub(crate) use rows::{Limit, OnError, Row, Rows};

/// Bytes read from a file at a time.
const READ: usize = 1 << 16;

/// The formats an input file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A text per line.
    Text,
    /// A JSON object per line.
    Jsonl,
    /// Comma-separated values with a header row.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// What to read, checked.
#[derive(Debug)]
pub(crate) enum Source {
    /// Rows given as arguments.
    Arguments(Vec<Vec<String>>),
    /// A file, or standard input where there is no path.
    File { path: Option<PathBuf>, format: Format, columns: Vec<String> },
}

/// What tells a file from another, or from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    bytes: u64,
    /// Since 1970.
    modified_nanoseconds: Option<u64>,
}

/// What is wrong with one row. The rows behind it can be read.
#[derive(Debug)]
pub(crate) struct BadRow(String);

/// A reader of rows.
trait Reader {
    /// The texts of the next row, one for each column; none at the end.
    ///
    /// # Errors
    /// [`BadRow`] for a row that others may follow.
    fn read(&mut self) -> Result<Option<Vec<String>>>;

    /// The line, or row, of what was read last; the first is 1.
    fn number(&self) -> u64;
}

impl BadRow {
    /// An error that says what is wrong, and in which row of which file.
    fn error(what: String) -> anyhow::Error {
        Self(what).into()
    }
}

impl std::fmt::Display for BadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRow {}

/// How long a stream is, as far as one can know before reading it.
enum Extent {
    Unknown,
    Rows(u64),
    Bytes { read: Rc<Cell<u64>>, total: u64 },
}

impl Source {
    /// What its format is called.
    pub(crate) fn format(&self) -> String {
        match self {
            Self::File { format, .. } => format.to_possible_value().map(|value| value.get_name().to_owned()),
            Self::Arguments(_) => None,
        }
        .unwrap_or_else(|| "arguments".into())
    }

    /// That it is not what is written, nor one of the files that lie beside that meanwhile.
    pub(crate) fn is_not(&self, output: Option<&Path>) -> Result<()> {
        let (Self::File { path: Some(input), .. }, Some(output)) = (self, output) else { return Ok(()) };
        let input = input.canonicalize().with_context(|| format!("cannot read {}", input.display()))?;
        // A device may be both.
        if input.is_file()
            && output::written(output).iter().any(|path| path.canonicalize().is_ok_and(|path| path == input))
        {
            return Err(Usage::error(format!(
                "-i {} would be written over by -o {}: name another output",
                input.display(),
                output.display()
            )));
        }
        Ok(())
    }

    /// Opens it. Columns and headers are looked up here, before any model is loaded.
    pub(crate) fn open(self, on_error: OnError, progress: &Progress) -> Result<Rows> {
        let (path, format, columns) = match self {
            Self::Arguments(rows) => return Ok(Rows::of_arguments(rows, on_error, progress)),
            Self::File { path, format, columns } => (path, format, columns),
        };
        let name = path.as_deref().map_or_else(|| "standard input".to_owned(), |p| p.display().to_string());
        let (reader, unit, extent): (Box<dyn Reader>, _, _) = if format == Format::Parquet {
            let file = seekable(path.as_deref()).with_context(|| format!("cannot read {name}"))?;
            let rows = parquet::Rows::open(file, &name, &columns)?;
            let extent = Extent::Rows(rows.total());
            (Box::new(rows), "row", extent)
        } else {
            let (reader, extent) = open(path.as_deref()).with_context(|| format!("cannot read {name}"))?;
            let reader: Box<dyn Reader> = match format {
                Format::Jsonl => Box::new(jsonl::Objects::new(reader, name.clone(), columns)),
                Format::Csv => Box::new(csv::Rows::open(reader, name.clone(), &columns)?),
                Format::Text | Format::Parquet => Box::new(text::Lines::new(reader, name.clone())),
            };
            (reader, "line", extent)
        };
        let identity = path.and_then(|path| Identity::of(&path));
        Ok(Rows::of_file(reader, (unit, name), extent, identity, on_error, progress))
    }
}

impl Identity {
    /// Of a file that can be read again; none of a pipe or a device.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let modified_nanoseconds = modified.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Some(Self { bytes: metadata.len(), modified_nanoseconds })
    }
}

impl Format {
    /// The format that a file's extension stands for.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            // Lines of one of these would be embedded without a complaint, and mean nothing.
            other if other == "json" || [&output::FOREIGN[..], &output::COMPRESSED].concat().contains(&other) => {
                Err(Usage::error(format!(
                    "cannot read .{extension} files ({}): give text lines, .jsonl, .csv or .parquet, or say --input-format",
                    path.display()
                )))
            }
            _ => Ok(Self::Text),
        }
    }
}

fn open(path: Option<&Path>) -> io::Result<(Box<dyn BufRead>, Extent)> {
    let Some(path) = path else {
        return Ok((Box::new(BufReader::with_capacity(READ, io::stdin())), Extent::Unknown));
    };
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let read = Rc::new(Cell::new(0));
    let extent = if metadata.is_file() {
        Extent::Bytes { read: Rc::clone(&read), total: metadata.len() }
    } else {
        Extent::Unknown
    };
    Ok((Box::new(BufReader::with_capacity(READ, Counted { file, read })), extent))
}

/// A file that can be read at any place, as Parquet needs: standard input and pipes are copied to an unnamed temporary file.
fn seekable(path: Option<&Path>) -> Result<File> {
    let copied = |mut from: Box<dyn Read>| -> Result<File> {
        let mut copy = tempfile::tempfile().context("no place for a temporary copy")?;
        io::copy(&mut from, &mut copy)?;
        Ok(copy)
    };
    let Some(path) = path else { return copied(Box::new(io::stdin())) };
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { copied(Box::new(file)) }
}

/// Names in quotes for an error of one line: the start of the first few, and how many more there are.
fn shortened(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 8;
    const LONGEST: usize = 60;
    let short = |name: &str| match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}..\"", &name[..end]),
        None => format!("\"{name}\""),
    };
    let names: Vec<String> = names.into_iter().map(|n| short(n.as_ref())).collect();
    let more = names.len().saturating_sub(SHOWN);
    match names.len() {
        0 => "nothing".to_owned(),
        n if n > SHOWN => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

/// A file that counts what is read of it.
struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Verbosity;

    #[test]
    fn chunks_stop_at_either_limit() {
        let rows = ["aaaa", "bbbb", "c", "d", "e"].map(|text| vec![text.to_owned()]).to_vec();
        let quiet = Progress::new(Verbosity { quiet: true, verbose: false }, true);
        let mut rows = Source::Arguments(rows).open(OnError::Stop, &quiet).unwrap();
        let limit = Limit { rows: 3, bytes: 6 };
        let mut texts = || {
            let chunk = rows.chunk(limit).unwrap();
            (chunk.iter().map(|row| row.fields[0].clone()).collect::<Vec<_>>(), rows.fraction())
        };
        assert_eq!(texts(), (vec!["aaaa".to_owned(), "bbbb".to_owned()], Some(0.4)));
        assert_eq!(texts(), (["c", "d", "e"].map(str::to_owned).to_vec(), Some(1.0)));
        assert_eq!(texts().0, [""; 0]);
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::of(Path::new("a.b/x.JSONL")).unwrap(), Format::Jsonl);
        assert_eq!(Format::of(Path::new("x.csv")).unwrap(), Format::Csv);
        assert_eq!(Format::of(Path::new("x.parquet")).unwrap(), Format::Parquet);
        assert_eq!(Format::of(Path::new("x.md")).unwrap(), Format::Text);
        assert_eq!(Format::of(Path::new("jsonl")).unwrap(), Format::Text);
        for name in ["x.csv.gz", "x.txt.bz2", "x.JSON", "x.tsv"] {
            assert!(Format::of(Path::new(name)).is_err(), "{name}");
        }
    }
}
