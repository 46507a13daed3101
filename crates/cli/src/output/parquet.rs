//! Apache Parquet: the columns of a table with their types, vectors and lists as lists.
//!
//! Rows are gathered until they make a row group, so memory stays the same however many there are. A file's index of its
//! groups stands at its end; what a run that goes on needs of it is the journal's.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::file::metadata::{
    FileMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetMetaDataWriter,
    RowGroupMetaData,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::table::{Column, Kind, Value};
use super::target::Target;

/// Bytes of values in a row group, at least: 1,400 vectors of 384, each value with its levels. The group is held once as
/// values and once as it is written.
const GROUP: usize = 1 << 22;
/// Bytes behind the index: its length, and the magic number.
const FOOTER: usize = 8;

/// A table that grows by rows.
pub(super) struct Table {
    writer: SerializedFileWriter<Vec<u8>>,
    /// What the index says of the file as a whole.
    described: FileMetaData,
    /// The row groups of the run that this goes on with.
    before: Vec<RowGroupMetaData>,
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

/// The values of a column that wait for their row group.
struct Values {
    data: Data,
    list: bool,
    /// Of a list: 1 for a value, 0 for a list without one.
    definition: Vec<i16>,
    /// Of a list: 0 where one begins, 1 within it.
    repetition: Vec<i16>,
}

enum Data {
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<ByteArray>),
}

impl Table {
    /// A table of these columns.
    pub(super) fn new(columns: &[Column]) -> Result<Self> {
        let mut schema = "message results {\n".to_owned();
        // Dictionaries pay for strings that come again, and never for the results of a model.
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        for Column { name, kind } in columns {
            let (kind, list) = match kind {
                Kind::Integer => ("int64", false),
                Kind::Float => ("float", false),
                Kind::Text => ("binary", false),
                Kind::Vector { .. } => ("float", true),
                Kind::Integers => ("int64", true),
                Kind::Texts => ("binary", true),
            };
            let string = if kind == "binary" { " (STRING)" } else { "" };
            // Writing to a string cannot fail.
            let _ = if list {
                writeln!(
                    schema,
                    "required group {name} (LIST) {{ repeated group list {{ required {kind} element{string}; }} }}"
                )
            } else {
                writeln!(schema, "required {kind} {name}{string};")
            };
            let path =
                if list { vec![(*name).to_owned(), "list".into(), "element".into()] } else { vec![(*name).to_owned()] };
            properties = properties.set_column_dictionary_enabled(ColumnPath::new(path), kind == "binary");
        }
        schema.push('}');
        let schema = Arc::new(parse_message_type(&schema).context("cannot describe the table")?);
        let properties = Arc::new(properties.build());
        let empty = SerializedFileWriter::new(Vec::new(), Arc::clone(&schema), Arc::clone(&properties))?.close()?;
        let writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
        let columns = columns.iter().map(|column| Values::new(column.kind)).collect();
        let described = empty.file_metadata().clone();
        Ok(Self { writer, described, before: Vec::new(), columns, rows: 0, bytes: 0 })
    }

    /// The table of which `bytes` bytes are written, with this [`index`](Self::index).
    pub(super) fn resumed(columns: &[Column], bytes: u64, index: &str) -> Result<Self> {
        let damaged = "the index in the journal is damaged: leave out --resume to begin again";
        let index = BASE64.decode(index).context(damaged)?;
        let index = decode(&index).context(damaged)?;
        let mut table = Self::new(columns)?;
        // The writer counts bytes to know where a group begins; those that are on the disk already go nowhere.
        let mut left = bytes.checked_sub(table.writer.bytes_written() as u64).context(damaged)?;
        let nothing = [0; 1 << 14];
        while left > 0 {
            let some = left.min(nothing.len() as u64);
            table.writer.write_all(&nothing[..some as usize])?;
            table.writer.flush()?;
            table.writer.inner_mut().clear();
            left -= some;
        }
        table.before = index.row_groups().to_vec();
        Ok(table)
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &[Value<'_>]) -> Result<()> {
        if row.len() != self.columns.len() {
            bail!("a row of {} values for {} columns", row.len(), self.columns.len());
        }
        for (values, value) in self.columns.iter_mut().zip(row) {
            self.bytes += values.push(*value)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Writes the rows that wait, if they are enough for a group.
    pub(super) fn flush(&mut self, target: &mut Target) -> Result<()> {
        if self.bytes >= GROUP { self.group(target) } else { Ok(()) }
    }

    /// Whether there are rows that are not written yet.
    pub(super) fn waits(&self) -> bool {
        self.rows > 0
    }

    /// What a run has to know that goes on after the groups written so far.
    pub(super) fn index(&self) -> Result<String> {
        Ok(BASE64.encode(self.footer()?))
    }

    /// Writes what waits and the table's end.
    pub(super) fn finish(mut self, target: &mut Target) -> Result<()> {
        if self.rows > 0 {
            self.group(target)?;
        }
        self.writer.flush()?;
        target.write(&std::mem::take(self.writer.inner_mut()))?;
        target.write(&self.footer()?)
    }

    /// The end of a file of the groups written so far: the index of them, and where it begins.
    fn footer(&self) -> Result<Vec<u8>> {
        let mut groups = self.before.clone();
        for group in self.writer.flushed_row_groups() {
            let place = i32::try_from(groups.len()).context("a Parquet file cannot have so many row groups")?;
            groups.push(group.clone().into_builder().set_ordinal(place).build()?);
        }
        let file = &self.described;
        let file = FileMetaData::new(
            file.version(),
            groups.iter().map(RowGroupMetaData::num_rows).sum(),
            file.created_by().map(str::to_owned),
            file.key_value_metadata().cloned(),
            file.schema_descr_ptr(),
            file.column_orders().cloned(),
        );
        // An index that was read lacks deprecated copies of statistics. So does every file then, and it is the same
        // whether it was gone on with or not.
        encode(&decode(&encode(&ParquetMetaData::new(file, groups))?)?)
    }

    /// Writes the rows that wait.
    fn group(&mut self, target: &mut Target) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        for values in &mut self.columns {
            let Some(column) = group.next_column()? else { bail!("more columns than the table has") };
            values.write(column)?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        self.writer.flush()?;
        target.write(&std::mem::take(self.writer.inner_mut()))
    }
}

impl Values {
    fn new(kind: Kind) -> Self {
        let data = match kind {
            Kind::Integer | Kind::Integers => Data::Integers(Vec::new()),
            Kind::Float | Kind::Vector { .. } => Data::Floats(Vec::new()),
            Kind::Text | Kind::Texts => Data::Texts(Vec::new()),
        };
        let list = matches!(kind, Kind::Vector { .. } | Kind::Integers | Kind::Texts);
        Self { data, list, definition: Vec::new(), repetition: Vec::new() }
    }

    /// Adds a row's value and gives the bytes that it takes here.
    fn push(&mut self, value: Value<'_>) -> Result<usize> {
        let text = |text: &str| ByteArray::from(text);
        let (count, size) = match (&mut self.data, value, self.list) {
            (Data::Integers(data), Value::Integer(value), false) => {
                data.push(value.cast_signed());
                (1, 8)
            }
            (Data::Floats(data), Value::Float(value), false) => {
                data.push(value);
                (1, 4)
            }
            (Data::Texts(data), Value::Text(value), false) => {
                data.push(text(value));
                (1, size_of::<ByteArray>() + value.len())
            }
            (Data::Floats(data), Value::Vector(values), true) => {
                data.extend_from_slice(values);
                (values.len(), 4 * values.len())
            }
            (Data::Integers(data), Value::Integers(values), true) => {
                data.extend(values.iter().map(|&value| i64::from(value)));
                (values.len(), 8 * values.len())
            }
            (Data::Texts(data), Value::Texts(values), true) => {
                data.extend(values.iter().map(|value| text(value)));
                (values.len(), values.iter().map(|value| size_of::<ByteArray>() + value.len()).sum())
            }
            _ => bail!("a value of another type than its column: {value:?}"),
        };
        if !self.list {
            return Ok(size);
        }
        // A list without values has a place of its own.
        let places = count.max(1);
        self.definition.extend(std::iter::repeat_n(i16::from(count > 0), places));
        self.repetition.push(0);
        self.repetition.extend(std::iter::repeat_n(1, places - 1));
        Ok(size + 4 * places)
    }

    /// Writes all values and forgets them.
    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<()> {
        let levels = self.list.then_some((&self.definition[..], &self.repetition[..]));
        let (definition, repetition) = levels.unzip();
        match &mut self.data {
            Data::Integers(data) => {
                column.typed::<Int64Type>().write_batch(data, definition, repetition)?;
                data.clear();
            }
            Data::Floats(data) => {
                column.typed::<FloatType>().write_batch(data, definition, repetition)?;
                data.clear();
            }
            Data::Texts(data) => {
                column.typed::<ByteArrayType>().write_batch(data, definition, repetition)?;
                data.clear();
            }
        }
        self.definition.clear();
        self.repetition.clear();
        column.close().context("cannot write a column")
    }
}

/// The end of a file.
fn encode(index: &ParquetMetaData) -> Result<Vec<u8>> {
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, index).finish()?;
    Ok(footer)
}

fn decode(footer: &[u8]) -> Result<ParquetMetaData> {
    let body = footer.len().checked_sub(FOOTER).context("there is no index")?;
    // Everything that stands in it, to be written again.
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    Ok(ParquetMetaDataReader::decode_metadata_with_options(&footer[..body], Some(&options))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_was_read_is_written_as_it_was() {
        let columns = [
            Column::new("index", Kind::Integer),
            Column::new("text", Kind::Text),
            Column::new("embedding", Kind::Vector { letter: 'e', width: 2 }),
            Column::new("ids", Kind::Integers),
            Column::new("tokens", Kind::Texts),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut target = Target::open(Some(folder.path().join("x"))).unwrap();
        let mut table = Table::new(&columns).unwrap();
        for i in 0..3 {
            let tokens = ["a".to_owned(), "é".to_owned()];
            let row = [
                Value::Integer(i),
                Value::Text("text"),
                Value::Vector(&[0.5, -1.0]),
                Value::Integers(&[1, 2, 3]),
                Value::Texts(&tokens[..i as usize % 2]),
            ];
            table.push(&row).unwrap();
        }
        assert!(table.waits());
        table.group(&mut target).unwrap();
        assert!(!table.waits());
        let resumed = Table::resumed(&columns, table.writer.bytes_written() as u64, &table.index().unwrap()).unwrap();
        assert_eq!(resumed.writer.bytes_written(), table.writer.bytes_written());
        assert_eq!(resumed.before.len(), 1);
        assert_eq!(resumed.footer().unwrap(), table.footer().unwrap());
    }
}
