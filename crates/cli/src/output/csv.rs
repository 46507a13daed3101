//! Comma-separated values as RFC 4180 has them, but with `\n` as the end of a row. A vector is as many fields; a list is
//! written as JSON, because strings may hold any character.
//!
//! Rows go to memory and cannot fail there, which is why this is not the csv crate's writer (that one reads the input).

use std::fmt::{Display, Write};

use super::table::{Column, Kind, Value};

/// The names of the columns.
pub(super) fn header(columns: &[Column], out: &mut Vec<u8>) {
    let mut row = Row::new(out);
    for column in columns {
        match column.kind {
            Kind::Vector { letter, width } => (0..width).for_each(|i| row.field(format_args!("{letter}{i}"))),
            _ => row.field(column.name),
        }
    }
    row.end();
}

/// One row.
pub(super) fn row(values: &[Value<'_>], out: &mut Vec<u8>) {
    let mut row = Row::new(out);
    for value in values {
        match value {
            Value::Integer(value) => row.field(value),
            // The fewest digits that read back as the same f32.
            Value::Float(value) => row.field(value),
            Value::Text(value) => row.field(value),
            Value::Vector(values) => values.iter().for_each(|value| row.field(value)),
            Value::Integers(values) => row.field(serde_json::json!(values)),
            Value::Texts(values) => row.field(serde_json::json!(values)),
        }
    }
    row.end();
}

/// A row that is being written, field by field.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    field: String,
    started: bool,
}

impl<'a> Row<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, field: String::new(), started: false }
    }

    fn field(&mut self, value: impl Display) {
        if self.started {
            self.out.push(b',');
        }
        self.started = true;
        self.field.clear();
        // Writing to a string fails only if the value's own Display does, and then there is nothing to write.
        let _ = write!(self.field, "{value}");
        if self.field.contains([',', '"', '\n', '\r']) {
            self.out.push(b'"');
            self.out.extend_from_slice(self.field.replace('"', "\"\"").as_bytes());
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(self.field.as_bytes());
        }
    }

    fn end(self) {
        self.out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_as_written() {
        let fields = ["plain", "", "a,b", "\"q\"", "line\nbreak\r\n", " ü "];
        let mut out = Vec::new();
        header(&fields.map(|name| Column::new(name, Kind::Float)), &mut out);
        row(&[0.1f32, -1e-30, 16_777_216.0, f32::MIN_POSITIVE].map(Value::Float), &mut out);
        let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(&out[..]);
        assert_eq!(reader.headers().unwrap(), &fields[..]);
        let row = reader.records().next().unwrap().unwrap();
        let values: Vec<f32> = row.iter().map(|v| v.parse().unwrap()).collect();
        assert_eq!(values, [0.1, -1e-30, 16_777_216.0, f32::MIN_POSITIVE]);
    }
}
