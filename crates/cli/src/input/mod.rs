//! Where texts come from: arguments, or a file of lines, JSON lines, CSV or Parquet, always as a stream.
//!
//! A file is never held in memory: readers give one text at a time and [`Texts::chunk`] gathers as many as one round of
//! work takes. Every error names the file and the line (or row) it was found in. One format per file beside this one.

mod csv;
mod jsonl;
mod parquet;
mod text;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::args::Usage;

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
    /// Texts given as arguments.
    Arguments(Vec<String>),
    /// A file, or standard input where there is no path.
    File { path: Option<PathBuf>, format: Format, column: String },
}

/// A stream of texts.
pub(crate) struct Texts {
    stream: Box<dyn Iterator<Item = Result<String>>>,
    extent: Extent,
    given: u64,
}

/// How much a chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Texts.
    pub(crate) texts: usize,
    /// Bytes of text; the last text may go over it.
    pub(crate) bytes: usize,
}

/// How long a stream is, as far as one can know before reading it.
enum Extent {
    Unknown,
    Texts(u64),
    Bytes { read: Rc<Cell<u64>>, total: u64 },
}

impl Source {
    /// Opens it. Columns and headers are looked up here, before any model is loaded.
    pub(crate) fn open(self) -> Result<Texts> {
        let (path, format, column) = match self {
            Self::Arguments(texts) => {
                let extent = Extent::Texts(texts.len() as u64);
                return Ok(Texts { stream: Box::new(texts.into_iter().map(Ok)), extent, given: 0 });
            }
            Self::File { path, format, column } => (path, format, column),
        };
        let name = path.as_deref().map_or_else(|| "standard input".to_owned(), |p| p.display().to_string());
        if format == Format::Parquet {
            let file = seekable(path.as_deref()).with_context(|| format!("cannot read {name}"))?;
            let rows = parquet::Rows::open(file, &name, &column)?;
            let extent = Extent::Texts(rows.total());
            return Ok(Texts { stream: Box::new(rows), extent, given: 0 });
        }
        let (reader, extent) = open(path.as_deref()).with_context(|| format!("cannot read {name}"))?;
        let stream: Box<dyn Iterator<Item = Result<String>>> = match format {
            Format::Jsonl => Box::new(jsonl::Objects::new(reader, name, column)),
            Format::Csv => Box::new(csv::Rows::open(reader, name, &column)?),
            Format::Text | Format::Parquet => Box::new(text::Lines::new(reader, name)),
        };
        Ok(Texts { stream, extent, given: 0 })
    }
}

impl Texts {
    /// The next texts, as many as `limit` allows; none at the end.
    pub(crate) fn chunk(&mut self, limit: Limit) -> Result<Vec<String>> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while chunk.len() < limit.texts && bytes < limit.bytes {
            let Some(text) = self.stream.next().transpose()? else { break };
            bytes += text.len();
            chunk.push(text);
        }
        self.given += chunk.len() as u64;
        Ok(chunk)
    }

    /// The part of the input that has been given out, 0 to 1, where the total is known.
    pub(crate) fn fraction(&self) -> Option<f64> {
        let (done, total) = match &self.extent {
            Extent::Unknown => return None,
            Extent::Texts(total) => (self.given, *total),
            Extent::Bytes { read, total } => (read.get(), *total),
        };
        (total > 0).then(|| (done as f64 / total as f64).min(1.0))
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
            "json" | "tsv" | "arrow" | "feather" | "xlsx" | "gz" | "zst" | "zip" => Err(Usage::error(format!(
                "cannot read .{extension} files ({}): give text lines, .jsonl, .csv or .parquet, or say --input-format",
                path.display()
            ))),
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

/// A file that can be read at any place, as Parquet needs: standard input is copied to an unnamed temporary file.
fn seekable(path: Option<&Path>) -> io::Result<File> {
    if let Some(path) = path {
        return File::open(path);
    }
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut copy)?;
    Ok(copy)
}

/// Names in quotes for an error of one line: the first few, and how many more there are.
fn shortened(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<String> = names.into_iter().map(|n| format!("\"{}\"", n.as_ref())).collect();
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

    #[test]
    fn chunks_stop_at_either_limit() {
        let texts = ["aaaa", "bbbb", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut texts = Source::Arguments(texts).open().unwrap();
        let limit = Limit { texts: 3, bytes: 6 };
        assert_eq!(texts.chunk(limit).unwrap(), ["aaaa", "bbbb"]);
        assert_eq!(texts.fraction(), Some(0.4));
        assert_eq!(texts.chunk(limit).unwrap(), ["c", "d", "e"]);
        assert_eq!(texts.fraction(), Some(1.0));
        assert!(texts.chunk(limit).unwrap().is_empty());
    }

    #[test]
    fn the_extension_decides() {
        assert_eq!(Format::of(Path::new("a.b/x.JSONL")).unwrap(), Format::Jsonl);
        assert_eq!(Format::of(Path::new("x.csv")).unwrap(), Format::Csv);
        assert_eq!(Format::of(Path::new("x.parquet")).unwrap(), Format::Parquet);
        assert_eq!(Format::of(Path::new("x.md")).unwrap(), Format::Text);
        assert_eq!(Format::of(Path::new("jsonl")).unwrap(), Format::Text);
        assert!(Format::of(Path::new("x.csv.gz")).is_err());
    }
}
