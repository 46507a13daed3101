//! Comma-separated values with a header row, of which some columns are the texts. Quoted fields may hold line breaks.

use std::io::BufRead;

use anyhow::{Context, Result, anyhow};
use csv::{ErrorKind, StringRecord};

use super::{BadRow, Reader};

/// The texts of some columns.
pub(super) struct Rows {
    reader: csv::Reader<Box<dyn BufRead>>,
    record: StringRecord,
    name: String,
    columns: Vec<usize>,
    line: u64,
}

impl Rows {
    /// Fields under the headers `columns` of `reader`, which errors call `name`.
    pub(super) fn open(reader: Box<dyn BufRead>, name: String, columns: &[String]) -> Result<Self> {
        let mut reader = csv::Reader::from_reader(reader);
        let headers = reader.headers().with_context(|| format!("cannot read the header row of {name}"))?;
        let place = |column: &String| {
            let found = headers.iter().position(|h| h == column);
            found.ok_or_else(|| {
                let columns = super::shortened(headers);
                anyhow!("{name} has no column \"{column}\" in its header row, only {columns}: choose with --column")
            })
        };
        let columns = columns.iter().map(place).collect::<Result<_>>()?;
        Ok(Self { reader, record: StringRecord::new(), name, columns, line: 0 })
    }
}

impl Reader for Rows {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        match self.reader.read_record(&mut self.record) {
            Ok(true) => {
                self.line = self.record.position().map_or(0, csv::Position::line);
                // All records have the header's number of fields: the reader refuses others.
                let field = |&column: &usize| self.record.get(column).unwrap_or_default().to_owned();
                Ok(Some(self.columns.iter().map(field).collect()))
            }
            Ok(false) => Ok(None),
            Err(error) => Err(placed(error, &self.name)),
        }
    }

    fn number(&self) -> u64 {
        self.line
    }
}

/// The error with its place in the words that the other readers use.
fn placed(error: csv::Error, name: &str) -> anyhow::Error {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => BadRow::error(format!(
            "line {line} of {name} has {len} fields, expected {expected_len} as in the header row"
        )),
        ErrorKind::Utf8 { err, .. } => {
            BadRow::error(format!("line {line} of {name} is not UTF-8 (field {})", err.field() + 1))
        }
        _ => anyhow!(error).context(format!("cannot read {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(bytes: &'static [u8], column: &str) -> Result<Vec<String>, String> {
        let rows = Rows::open(Box::new(bytes), "x.csv".into(), &[column.to_owned()]);
        let mut rows = rows.map_err(|e| format!("{e:#}"))?;
        let read = || rows.read().map(|row| row.map(|texts| texts.concat())).map_err(|e| format!("{e:#}"));
        std::iter::repeat_with(read).map_while(Result::transpose).collect()
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
