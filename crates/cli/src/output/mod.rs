//! Where results go: one [`Record`] per text, in a format, to standard output or a file that appears when it is whole.
//!
//! A command says what a record looks like in each format; [`Sink`] writes records as they come and holds none of them.
//! `target.rs` is the destination, one format per file beside it.

mod csv;
mod json;
mod npy;
mod target;
mod text;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::args::Usage;
pub(crate) use csv::Row;
pub(crate) use target::{StdoutClosed, Target};
pub(crate) use text::{Text, shown};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text for people, values shortened.
    Text,
    /// One JSON array of all results.
    Json,
    /// A JSON object per line.
    Jsonl,
    /// Comma-separated values with a header row.
    Csv,
    /// A NumPy array of little-endian f32.
    Npy,
}

/// The result for one text.
///
/// As JSON it is what [`Serialize`] makes of it; the other formats are given here.
pub(crate) trait Record: Serialize {
    /// Adds the lines that show it to people, each with its end.
    fn text(&self, out: &mut Text);
    /// Gives its rows, with as many fields as the sink was given columns.
    fn csv(&self, row: &mut Row<'_>);
    /// The rows it adds to an array, as values end to end; none if it is not numbers.
    fn array(&self) -> Option<&[f32]> {
        None
    }
}

/// What a command's results have in common.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// The line above all text.
    pub(crate) heading: &'static str,
    /// Names of the columns of CSV.
    pub(crate) columns: Vec<String>,
    /// Columns of the array.
    pub(crate) width: usize,
}

/// Writes records in one format.
pub(crate) struct Sink {
    format: Format,
    target: Target,
    encoded: Vec<u8>,
    text: Text,
    array: Option<npy::Array>,
    records: u64,
}

/// Where one answer goes that is whole by itself.
pub(crate) struct Document {
    format: Format,
    file: Option<PathBuf>,
}

impl Shape {
    /// Of results that are a table, but no array of numbers.
    pub(crate) fn table(heading: &'static str, columns: &[&str]) -> Self {
        Self { heading, columns: columns.iter().map(|&column| column.to_owned()).collect(), width: 0 }
    }
}

impl Format {
    /// The format asked for; else what the file's extension stands for; else text for people and lines for programs.
    pub(crate) fn choose(asked: Option<Self>, file: Option<&Path>) -> Self {
        let extension = file.and_then(Path::extension).and_then(|e| e.to_str()).unwrap_or_default();
        let named = match extension.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "npy" => Some(Self::Npy),
            "txt" => Some(Self::Text),
            _ => None,
        };
        let people = file.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout());
        asked.or(named).unwrap_or(if people { Self::Text } else { Self::Jsonl })
    }
}

impl Sink {
    /// Opens the destination: `file`, or standard output.
    pub(crate) fn open(format: Format, file: Option<PathBuf>) -> Result<Self> {
        let target = Target::open(file)?;
        Ok(Self { format, target, encoded: Vec::new(), text: Text::default(), array: None, records: 0 })
    }

    /// Writes what stands before all records. To be called once, before the first.
    pub(crate) fn begin(&mut self, shape: &Shape) -> Result<()> {
        match self.format {
            Format::Text => self.target.write(format!("{}\n", shape.heading).as_bytes()),
            Format::Jsonl => Ok(()),
            Format::Json => self.target.write(b"["),
            Format::Csv => {
                csv::header(&shape.columns, &mut self.encoded);
                self.put()
            }
            Format::Npy => {
                self.array = Some(npy::Array::begin(shape.width, &mut self.target)?);
                Ok(())
            }
        }
    }

    /// Writes one record.
    pub(crate) fn push<R: Record>(&mut self, record: &R) -> Result<()> {
        match self.format {
            Format::Text => {
                record.text(&mut self.text);
                self.encoded.extend_from_slice(self.text.as_bytes());
                self.text.clear();
            }
            Format::Json => json::element(record, self.records == 0, &mut self.encoded)?,
            Format::Jsonl => json::line(record, &mut self.encoded)?,
            Format::Csv => record.csv(&mut Row::new(&mut self.encoded)),
            Format::Npy => {
                let values = record.array().ok_or_else(|| Usage::error("these results have no npy format"))?;
                if let Some(array) = &mut self.array {
                    array.extend(values, &mut self.target)?;
                }
            }
        }
        self.records += 1;
        self.put()
    }

    /// Passes everything so far on, so that a reader of a pipe sees it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.target.flush()
    }

    /// Writes what stands after all records and, for a file, gives it its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        match self.format {
            Format::Json => self.target.write(if self.records == 0 { b"]\n" } else { b"\n]\n" })?,
            Format::Npy => {
                if let Some(array) = self.array.take() {
                    array.finish(&mut self.target)?;
                }
            }
            Format::Text | Format::Jsonl | Format::Csv => {}
        }
        self.target.finish()
    }

    fn put(&mut self) -> Result<()> {
        self.target.write(&self.encoded)?;
        self.encoded.clear();
        Ok(())
    }
}

/// Names of columns: a letter and a number from 0 on.
pub(crate) fn numbered(letter: char, columns: usize) -> impl Iterator<Item = String> {
    (0..columns).map(move |i| format!("{letter}{i}"))
}

impl Document {
    /// Where and how to write it.
    ///
    /// An answer that is no table has no CSV and no array: that is wrong usage, said before any work.
    pub(crate) fn new(format: Format, file: Option<PathBuf>) -> Result<Self> {
        match format {
            Format::Text | Format::Json | Format::Jsonl => Ok(Self { format, file }),
            Format::Csv | Format::Npy => Err(Usage::error("this answer is no table: --format text, json or jsonl")),
        }
    }

    /// Writes `value`: as text for people, as an object for programs.
    pub(crate) fn write(self, value: &impl Serialize, text: impl FnOnce() -> Text) -> Result<()> {
        let bytes = match self.format {
            Format::Text => text().as_bytes().to_vec(),
            Format::Json => json::pretty(value)?,
            _ => json::single(value)?,
        };
        let mut target = Target::open(self.file)?;
        target.write(&bytes)?;
        target.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides_unless_asked() {
        assert_eq!(Format::choose(None, Some(Path::new("x.NPY"))), Format::Npy);
        assert_eq!(Format::choose(Some(Format::Csv), Some(Path::new("x.npy"))), Format::Csv);
        assert_eq!(Format::choose(None, Some(Path::new("x.out"))), Format::Jsonl);
    }
}
