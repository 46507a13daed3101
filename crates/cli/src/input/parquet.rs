//! Apache Parquet, of which one top-level string column is the text. Pages are read one at a time, whatever the size of
//! the row groups, so memory is that of a page and its dictionary.

use std::fs::File;
use std::sync::Arc;
use std::vec;

use anyhow::{Context, Result, anyhow, bail};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

/// Rows decoded at a time.
const BATCH: usize = 1024;

/// The texts of one column.
pub(super) struct Rows {
    file: SerializedFileReader<File>,
    name: String,
    column: usize,
    descriptor: Arc<ColumnDescriptor>,
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    batch: vec::IntoIter<ByteArray>,
    given: u64,
}

impl Rows {
    /// Strings in the column `column` of `file`, which errors call `name`.
    pub(super) fn open(file: File, name: &str, column: &str) -> Result<Self> {
        let file = crate::catching(|| Ok(SerializedFileReader::new(file)?));
        let file = file.with_context(|| format!("{name} is not a Parquet file"))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let index = schema.columns().iter().position(|c| c.path().parts() == [column]);
        let index = index.ok_or_else(|| {
            let columns = super::shortened(schema.root_schema().get_fields().iter().map(|f| f.name()));
            anyhow!("{name} has no string column \"{column}\", only {columns}: choose with --column")
        })?;
        let descriptor = schema.column(index);
        if descriptor.physical_type() != Type::BYTE_ARRAY || descriptor.max_rep_level() > 0 {
            bail!("column \"{column}\" of {name} holds {}, expected strings", descriptor.physical_type());
        }
        let batch = Vec::new().into_iter();
        Ok(Self { file, name: name.to_owned(), column: index, descriptor, group: 0, reader: None, batch, given: 0 })
    }

    /// Rows in the whole file.
    pub(super) fn total(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Decodes the next rows into `self.batch`; false at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if self.reader.is_none() {
                if self.group == self.file.num_row_groups() {
                    return Ok(false);
                }
                let group = self.file.get_row_group(self.group)?;
                let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(self.column)? else {
                    bail!("row group {} does not have the type its schema says", self.group + 1);
                };
                self.reader = Some(reader);
                self.group += 1;
            }
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let Some(reader) = &mut self.reader else { continue };
            let (rows, found, _) = reader.read_records(BATCH, Some(&mut levels), None, &mut values)?;
            if rows == 0 {
                self.reader = None;
                continue;
            }
            if found < rows {
                let full = self.descriptor.max_def_level();
                let null = levels.iter().position(|&level| level < full).unwrap_or(0) as u64;
                bail!("row {} has no \"{}\" (null), expected a string", self.given + null + 1, self.descriptor.name());
            }
            self.batch = values.into_iter();
            return Ok(true);
        }
    }

    fn row(&mut self) -> Result<Option<String>> {
        if self.batch.len() == 0 && !self.fill()? {
            return Ok(None);
        }
        let Some(value) = self.batch.next() else { return Ok(None) };
        self.given += 1;
        let text = std::str::from_utf8(value.data()).with_context(|| format!("row {} is not UTF-8", self.given))?;
        Ok(Some(text.to_owned()))
    }
}

impl Iterator for Rows {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        // The parquet crate checks less than it relies on: flipped bytes in a page make it panic (version 60.1).
        let row = crate::catching(|| self.row()).with_context(|| format!("cannot read {}", self.name));
        row.transpose()
    }
}
