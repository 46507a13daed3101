//! Apache Parquet: the columns of a table with their types, vectors and lists as lists.
//!
//! Rows are gathered until they make a row group, so memory stays the same however many there are.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::table::{Column, Kind, Value};
use super::target::Target;

/// Bytes of values in a row group: 1,400 vectors of 384, each value with its levels. The group is held once as values
/// and once as it is written.
const GROUP: usize = 1 << 22;

/// A table that grows by rows.
pub(super) struct Table {
    writer: SerializedFileWriter<Vec<u8>>,
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
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build()))?;
        let columns = columns.iter().map(|column| Values::new(column.kind)).collect();
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &[Value<'_>], target: &mut Target) -> Result<()> {
        if row.len() != self.columns.len() {
            bail!("a row of {} values for {} columns", row.len(), self.columns.len());
        }
        for (values, value) in self.columns.iter_mut().zip(row) {
            self.bytes += values.push(*value)?;
        }
        self.rows += 1;
        if self.bytes >= GROUP { self.group(target) } else { Ok(()) }
    }

    /// Writes what waits and the table's end.
    pub(super) fn finish(mut self, target: &mut Target) -> Result<()> {
        if self.rows > 0 {
            self.group(target)?;
        }
        target.write(&self.writer.into_inner()?)
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
