//! Comma-separated values with a header row, of which one column is the text. Quoted fields may hold line breaks.

use std::io::BufRead;

use anyhow::{Context, Result, anyhow};
use csv::{ErrorKind, Reader, StringRecord};

/// The texts of one column.
pub(super) struct Rows {
    reader: Reader<Box<dyn BufRead>>,
    record: StringRecord,
    name: String,
    column: usize,
}

impl Rows {
    /// Fields under the header `column` of `reader`, which errors call `name`.
    pub(super) fn open(reader: Box<dyn BufRead>, name: String, column: &str) -> Result<Self> {
        let mut reader = Reader::from_reader(reader);
        let headers = reader.headers().with_context(|| format!("cannot read the header row of {name}"))?;
        let found = headers.iter().position(|h| h == column);
        let column = found.ok_or_else(|| {
            let columns = super::shortened(headers);
            anyhow!("{name} has no column \"{column}\" in its header row, only {columns}: choose with --column")
        })?;
        Ok(Self { reader, record: StringRecord::new(), name, column })
    }
}

impl Iterator for Rows {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_record(&mut self.record) {
            // All records have the header's number of fields: the reader refuses others.
            Ok(true) => Some(Ok(self.record.get(self.column).unwrap_or_default().to_owned())),
            Ok(false) => None,
            Err(error) => Some(Err(placed(error, &self.name))),
        }
    }
}

/// The error with its place in the words that the other readers use.
fn placed(error: csv::Error, name: &str) -> anyhow::Error {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            anyhow!("line {line} of {name} has {len} fields, expected {expected_len} as in the header row")
        }
        ErrorKind::Utf8 { err, .. } => anyhow!("line {line} of {name} is not UTF-8 (field {})", err.field() + 1),
        _ => anyhow!(error).context(format!("cannot read {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &'static [u8], column: &str) -> Result<Vec<String>, String> {
        let rows = Rows::open(Box::new(bytes), "x.csv".into(), column).map_err(|e| format!("{e:#}"))?;
        rows.map(|t| t.map_err(|e| format!("{e:#}"))).collect()
    }

    #[test]
    fn quotes_breaks_and_marks() {
        let bytes = b"\xef\xbb\xbftext,n\r\n\"a, \"\"b\"\"\nc\",1\r\n,2\r\nlast,3";
        assert_eq!(rows(bytes, "text").unwrap(), ["a, \"b\"\nc", "", "last"]);
        assert_eq!(rows(bytes, "n").unwrap(), ["1", "2", "3"]);
    }

    #[test]
    fn errors_name_line_or_column() {
        let error = rows(b"title,n\na,1\n", "text").unwrap_err();
        assert_eq!(
            error,
            "x.csv has no column \"text\" in its header row, only \"title\", \"n\": choose with --column"
        );
        let error = rows(b"text,n\na,1\nb\n", "text").unwrap_err();
        assert_eq!(error, "line 3 of x.csv has 1 fields, expected 2 as in the header row");
        let error = rows(b"text,n\nok,1\n\xff,2\n", "text").unwrap_err();
        assert_eq!(error, "line 3 of x.csv is not UTF-8 (field 1)");
        assert!(rows(b"", "text").unwrap_err().contains("no column \"text\""));
    }
}
