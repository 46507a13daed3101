//! Comma-separated values as RFC 4180 has them, but with `\n` as the end of a row.
//!
//! Rows go to memory and cannot fail there, which is why this is not the csv crate's writer (that one reads the input).

use std::fmt::{Display, Write};

/// Writes rows, field by field.
pub(crate) struct Row<'a> {
    out: &'a mut Vec<u8>,
    field: String,
    started: bool,
}

/// The names of the columns.
pub(super) fn header(columns: &[String], out: &mut Vec<u8>) {
    let mut row = Row::new(out);
    for column in columns {
        row.field(column);
    }
    row.end();
}

impl<'a> Row<'a> {
    /// Adds rows to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, field: String::new(), started: false }
    }

    /// One field. An f32 keeps the fewest digits that read back as the same f32.
    pub(crate) fn field(&mut self, value: impl Display) {
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

    /// One field for each value.
    pub(crate) fn fields(&mut self, values: &[f32]) {
        for value in values {
            self.field(value);
        }
    }

    /// Ends the row.
    pub(crate) fn end(&mut self) {
        self.out.push(b'\n');
        self.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_as_written() {
        let fields = ["plain", "", "a,b", "\"q\"", "line\nbreak\r\n", " ü "];
        let mut out = Vec::new();
        header(&fields.map(str::to_owned), &mut out);
        let mut row = Row::new(&mut out);
        for value in [0.1f32, -1e-30, 16_777_216.0, f32::MIN_POSITIVE] {
            row.field(value);
        }
        row.end();
        let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(&out[..]);
        assert_eq!(reader.headers().unwrap(), &fields[..]);
        let row = reader.records().next().unwrap().unwrap();
        let values: Vec<f32> = row.iter().map(|v| v.parse().unwrap()).collect();
        assert_eq!(values, [0.1, -1e-30, 16_777_216.0, f32::MIN_POSITIVE]);
    }
}
