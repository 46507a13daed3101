//! Apache Parquet, of which some top-level string columns are the texts. Pages are read one at a time, whatever the size
//! of the row groups, so memory is that of a page and its dictionary for each column.

use std::fs::File;
use std::sync::Arc;
use std::vec;

use anyhow::{Context, Result, anyhow, bail};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::pages::Checked;
use super::{BadRow, Reader};

/// Rows decoded at a time.
const BATCH: usize = 1024;

/// The texts of some columns.
pub(super) struct Rows {
    file: SerializedFileReader<File>,
    name: String,
    columns: Vec<Column>,
    given: u64,
}

/// One column, read by itself.
struct Column {
    index: usize,
    descriptor: Arc<ColumnDescriptor>,
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    batch: vec::IntoIter<Option<ByteArray>>,
}

impl Rows {
    /// Strings in the columns `columns` of `file`, which errors call `name`.
    pub(super) fn open(file: File, name: &str, columns: &[String]) -> Result<Self> {
        let bytes = file.metadata().with_context(|| format!("cannot read {name}"))?.len();
        let file = crate::catching(|| Ok(SerializedFileReader::new(file)?));
        let file = file.with_context(|| format!("{name} is not a Parquet file"))?;
        let columns = columns.iter().map(|column| Column::open(&file, bytes, name, column)).collect::<Result<_>>()?;
        Ok(Self { file, name: name.to_owned(), columns, given: 0 })
    }

    /// Rows in the whole file.
    pub(super) fn total(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    fn row(&mut self) -> Result<Option<Vec<String>>> {
        let mut ended = 0;
        for column in &mut self.columns {
            if column.batch.len() == 0 && !column.fill(&self.file)? {
                ended += 1;
            }
        }
        if ended == self.columns.len() {
            return Ok(None);
        }
        self.given += 1;
        if ended > 0 {
            bail!("row {} has not all of its columns", self.given);
        }
        let values: Vec<Option<ByteArray>> =
            self.columns.iter_mut().map(|column| column.batch.next().flatten()).collect();
        let place = || format!("row {} of {}", self.given, self.name);
        let text = |(column, value): (&Column, Option<ByteArray>)| {
            let Some(value) = value else {
                let name = column.descriptor.name();
                return Err(BadRow::error(format!("{} has no \"{name}\" (null), expected a string", place())));
            };
            let text = std::str::from_utf8(value.data());
            text.map(str::to_owned).map_err(|_| BadRow::error(format!("{} is not UTF-8", place())))
        };
        self.columns.iter().zip(values).map(text).collect::<Result<_>>().map(Some)
    }
}

impl Column {
    fn open(file: &SerializedFileReader<File>, bytes: u64, name: &str, column: &str) -> Result<Self> {
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let index = schema.columns().iter().position(|c| c.path().parts() == [column]);
        let index = index.ok_or_else(|| {
            let fields = schema.root_schema().get_fields();
            if fields.iter().any(|field| field.name() == column) {
                return anyhow!("column \"{column}\" of {name} holds lists or structures, expected strings");
            }
            let columns = super::shortened(fields.iter().map(|f| f.name()));
            anyhow!("{name} has no string column \"{column}\", only {columns}: choose with --column")
        })?;
        let descriptor = schema.column(index);
        if descriptor.physical_type() != Type::BYTE_ARRAY || descriptor.max_rep_level() > 0 {
            bail!("column \"{column}\" of {name} holds {}, expected strings", descriptor.physical_type());
        }
        for (group, number) in file.metadata().row_groups().iter().zip(1..) {
            let chunk = group.column(index);
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let size = chunk.compressed_size();
            let end = u64::try_from(start).ok().zip(u64::try_from(size).ok()).and_then(|(a, b)| a.checked_add(b));
            if end.is_none_or(|end| end > bytes) {
                bail!("{name} is damaged: row group {number} is said to have {size} bytes at {start}, of {bytes}");
            }
        }
        Ok(Self { index, descriptor, group: 0, reader: None, batch: Vec::new().into_iter() })
    }

    /// Decodes the next rows into `self.batch`; false at the end of the file.
    fn fill(&mut self, file: &SerializedFileReader<File>) -> Result<bool> {
        loop {
            if self.reader.is_none() {
                if self.group == file.num_row_groups() {
                    return Ok(false);
                }
                let pages = file.get_row_group(self.group)?.get_column_page_reader(self.index)?;
                let pages = Box::new(Checked::new(pages, &self.descriptor));
                let ColumnReader::ByteArrayColumnReader(reader) =
                    get_column_reader(Arc::clone(&self.descriptor), pages)
                else {
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
            let mut values = values.into_iter();
            let batch: Vec<Option<ByteArray>> = if found == rows {
                values.map(Some).collect()
            } else {
                let full = self.descriptor.max_def_level();
                levels.iter().map(|&level| if level == full { values.next() } else { None }).collect()
            };
            self.batch = batch.into_iter();
            return Ok(true);
        }
    }
}

impl Reader for Rows {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        // The parquet crate checks less than it relies on: flipped bytes in a page make it panic (version 60.1).
        crate::catching(|| self.row()).map_err(|error| {
            if error.is::<BadRow>() { error } else { error.context(format!("cannot read {}", self.name)) }
        })
    }

    fn number(&self) -> u64 {
        self.given
    }
}
