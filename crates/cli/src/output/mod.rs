//! Where results go: one [`Record`] per text, in a format, to standard output or a file that appears when it is whole.
//!
//! A command says what a record looks like in each format; [`Sink`] writes records as they come and holds none of them.
//! `target.rs` is the destination, one format per file beside it.

mod csv;
mod journal;
mod json;
mod npy;
mod parquet;
mod partial;
mod table;
mod target;
mod text;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use mlx_transformers::Info;
use serde::Serialize;

use crate::args::Usage;
pub(crate) use journal::{Done, Files, Settings};
pub(crate) use partial::{Ticket, written};
pub(crate) use table::{Column, Kind, Value};
pub(crate) use target::{StdoutClosed, Target};
pub(crate) use text::{Text, shown};

/// Extensions of compressed files, which are neither read nor written.
pub(crate) const COMPRESSED: [&str; 12] =
    ["gz", "tgz", "bz2", "xz", "lzma", "zst", "lz4", "br", "sz", "zip", "npz", "7z"];

/// Extensions of tables that are neither read nor written.
pub(crate) const FOREIGN: [&str; 5] = ["tsv", "arrow", "feather", "xls", "xlsx"];

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
    /// Apache Parquet.
    Parquet,
}

/// The result for one text.
///
/// As JSON it is what [`Serialize`] makes of it; the other formats are given here.
pub(crate) trait Record: Serialize {
    /// Adds the lines that show it to people, each with its end.
    fn text(&self, out: &mut Text);
    /// Gives its rows of a table, each with a value for every column that the sink was given.
    fn rows(&self, out: &mut dyn FnMut(&[Value<'_>]));
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
    /// The columns of CSV and Parquet.
    pub(crate) columns: Vec<Column>,
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
    table: Option<parquet::Table>,
    records: u64,
}

/// Where one answer goes that is whole by itself.
pub(crate) struct Document {
    format: Format,
    file: Option<PathBuf>,
}

impl Shape {
    /// Of results that are a table, but no array of numbers.
    pub(crate) fn table(heading: &'static str, columns: &[(&'static str, Kind)]) -> Self {
        Self { heading, columns: columns.iter().map(|&(name, kind)| Column::new(name, kind)).collect(), width: 0 }
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
            "parquet" => Some(Self::Parquet),
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
        Ok(Self::over(Target::open(file)?, format))
    }

    /// Opens `file` in such a way that another run can go on with it; so does this one if `resume` says so and there is
    /// something to go on with.
    pub(crate) fn journaled(format: Format, file: PathBuf, ticket: Ticket, resume: bool) -> Result<Self> {
        Ok(Self::over(Target::journaled(file, ticket, resume)?, format))
    }

    fn over(target: Target, format: Format) -> Self {
        let records = target.done().records;
        Self { format, target, encoded: Vec::new(), text: Text::default(), array: None, table: None, records }
    }

    /// How far the run is that this goes on with.
    pub(crate) fn done(&self) -> Done {
        self.target.done()
    }

    /// Notes that the results of `rows` rows, of which `skipped` had none, are written.
    pub(crate) fn note(&mut self, rows: u64, skipped: u64) -> Result<()> {
        let done = Done { rows, skipped, records: self.records, bytes: 0 };
        match &self.table {
            None => self.target.note(done, || Ok(None)),
            // Rows that wait for their group are not in the file yet.
            Some(table) if table.waits() => Ok(()),
            Some(table) => self.target.note(done, || table.index().map(Some)),
        }
    }

    /// The file that is kept for a run that goes on, if there is one.
    pub(crate) fn kept(&self) -> Option<PathBuf> {
        self.target.kept()
    }

    /// Writes what stands before all records. To be called once, before the first, when the model is loaded, with what it runs
    /// on: until then nothing that a run before has left is touched.
    pub(crate) fn begin(&mut self, shape: &Shape, info: Option<&Info>) -> Result<()> {
        self.target.begin(info.map(|info| info.device.device.as_str()))?;
        let bytes = self.done().bytes;
        match self.format {
            Format::Npy if bytes > 0 => {
                self.array = Some(npy::Array::resumed(shape.width, bytes));
                Ok(())
            }
            Format::Parquet if bytes > 0 => {
                let index = self.target.index().unwrap_or_default();
                self.table = Some(parquet::Table::resumed(&shape.columns, bytes, index)?);
                Ok(())
            }
            _ if bytes > 0 => Ok(()),
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
            Format::Parquet => {
                self.table = Some(parquet::Table::new(&shape.columns)?);
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
            Format::Csv => record.rows(&mut |row| csv::row(row, &mut self.encoded)),
            Format::Parquet => {
                let mut result = Ok(());
                record.rows(&mut |row| {
                    if let (Some(table), Ok(())) = (&mut self.table, &result) {
                        result = table.push(row);
                    }
                });
                result?;
            }
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
        if let Some(table) = &mut self.table {
            table.flush(&mut self.target)?;
        }
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
            Format::Parquet => {
                if let Some(table) = self.table.take() {
                    table.finish(&mut self.target)?;
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

impl Document {
    /// Where and how to write it.
    ///
    /// An answer that is no table has no CSV and no array: that is wrong usage, said before any work.
    pub(crate) fn new(format: Format, file: Option<PathBuf>) -> Result<Self> {
        match format {
            Format::Text | Format::Json | Format::Jsonl => Ok(Self { format, file }),
            Format::Csv | Format::Npy | Format::Parquet => {
                Err(Usage::error("this answer is no table: --format text, json or jsonl"))
            }
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
