//! Comma-separated values with a header row, of which some columns are the texts. Quoted fields may hold line breaks.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use csv::{ErrorKind, StringRecord};

use super::text::BOM;
use super::{BadRow, Reader};

/// The longest quoted field, in bytes. It bounds memory where a quote is not closed.
const LONGEST: u64 = 1 << 28;

/// The texts of some columns.
pub(super) struct Rows {
    reader: csv::Reader<Quotes>,
    /// The line of a quote that nothing has closed when the file ended.
    open: Rc<Cell<Option<u64>>>,
    record: StringRecord,
    name: String,
    columns: Vec<usize>,
    line: u64,
}

impl Rows {
    /// Fields under the headers `columns` of `reader`, which errors call `name`.
    pub(super) fn open(reader: Box<dyn BufRead>, name: String, columns: &[String]) -> Result<Self> {
        let open = Rc::default();
        let reader = without_mark(reader).with_context(|| format!("cannot read {name}"))?;
        let mut reader = csv::Reader::from_reader(Quotes::new(reader, Rc::clone(&open)));
        let headers = reader.headers().with_context(|| format!("cannot read the header row of {name}"))?;
        closed(&open, &name)?;
        let place = |column: &String| {
            let found = headers.iter().position(|h| h == column);
            found.ok_or_else(|| {
                let columns = super::shortened(headers);
                anyhow!("{name} has no column \"{column}\" in its header row, only {columns}: choose with --column")
            })
        };
        let columns = columns.iter().map(place).collect::<Result<_>>()?;
        Ok(Self { reader, open, record: StringRecord::new(), name, columns, line: 0 })
    }
}

/// All of `reader` but a byte order mark, of which the first read may give a part only.
fn without_mark(mut reader: Box<dyn BufRead>) -> io::Result<Box<dyn BufRead>> {
    let mut start = Vec::new();
    reader.by_ref().take(BOM.len() as u64).read_to_end(&mut start)?;
    if start == BOM {
        start.clear();
    }
    Ok(Box::new(io::Cursor::new(start).chain(reader)))
}

/// That every quote was closed. Nothing can follow one that was not: it is no row to be left out.
fn closed(open: &Cell<Option<u64>>, name: &str) -> Result<()> {
    match open.get() {
        Some(line) => bail!("the quote in line {line} of {name} is not closed: all behind it would be one field"),
        None => Ok(()),
    }
}

/// A file of which one knows where quotes are: the reader of its rows would take all behind one that is not closed for a field.
struct Quotes {
    reader: Box<dyn BufRead>,
    open: Rc<Cell<Option<u64>>>,
    place: Place,
    line: u64,
    /// Of the quote that is open, and how many bytes have come since.
    opened: u64,
    length: u64,
}

/// What is before a byte.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// The start of a field.
    Start,
    /// A field without quotes, or what follows its closing quote.
    Plain,
    /// A quoted field.
    Quoted,
    /// A quote in one: the end of it, or the first of two.
    Closing,
}

impl Quotes {
    fn new(reader: Box<dyn BufRead>, open: Rc<Cell<Option<u64>>>) -> Self {
        Self { reader, open, place: Place::Start, line: 1, opened: 1, length: 0 }
    }

    fn step(&mut self, byte: u8) {
        self.length += 1;
        self.place = match (self.place, byte) {
            (Place::Start, b'"') => {
                (self.opened, self.length) = (self.line, 0);
                Place::Quoted
            }
            (Place::Quoted, b'"') => Place::Closing,
            (Place::Closing, b'"') | (Place::Quoted, _) => Place::Quoted,
            (_, b',' | b'\n' | b'\r') => Place::Start,
            _ => Place::Plain,
        };
        self.line += u64::from(byte == b'\n');
    }
}

impl Read for Quotes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        for &byte in &buffer[..read] {
            self.step(byte);
        }
        let inside = self.place == Place::Quoted;
        if read == 0 && inside && !buffer.is_empty() {
            self.open.set(Some(self.opened));
        }
        if inside && self.length > LONGEST {
            let (line, most) = (self.opened, LONGEST >> 20);
            return Err(io::Error::other(format!("the quote in line {line} is not closed within {most} MiB")));
        }
        Ok(read)
    }
}

impl Reader for Rows {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        match self.reader.read_record(&mut self.record) {
            Ok(true) => {
                closed(&self.open, &self.name)?;
                self.line = self.record.position().map_or(0, csv::Position::line);
                // All records have the header's number of fields: the reader refuses others.
                let field = |&column: &usize| self.record.get(column).unwrap_or_default().to_owned();
                Ok(Some(self.columns.iter().map(field).collect()))
            }
            Ok(false) => Ok(None),
            Err(error) => closed(&self.open, &self.name).and(Err(placed(error, &self.name))),
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
    fn a_mark_is_one_only_as_a_whole_and_at_the_start() {
        // Letters of the same bytes, and then a quote that opens nothing.
        for (bytes, column) in [
            ("\u{fefb}\",n\nx,1\n", "\u{fefb}\""),
            ("\u{fb00}\",n\nx,1\n", "\u{fb00}\""),
            ("\u{ffff}\",n\nx,1\n", "\u{ffff}\""),
            ("n,\u{feff}\"\n1,x\n", "\u{feff}\""),
        ] {
            assert_eq!(rows(bytes.as_bytes(), column).unwrap(), ["x"], "{bytes}");
        }
        // It may come a byte at a time.
        let bytes: &[u8] = b"\xef\xbb\xbf\"text\"\nx";
        let pieces = bytes.chunks(1).map(|byte| Box::new(byte) as Box<dyn BufRead>);
        let slow = pieces.reduce(|start, rest| Box::new(start.chain(rest))).unwrap();
        let mut slow = Rows::open(slow, "x.csv".into(), &["text".to_owned()]).unwrap();
        assert_eq!(slow.read().unwrap().unwrap(), ["x"]);
    }

    #[test]
    fn a_quote_that_is_not_closed_is_an_error() {
        for (bytes, line) in [
            (&b"id,text\n1,\"abc\n2,def\n3,ghi\n"[..], 2),
            (b"text\nok\n\"a\"\"b\n", 3),
            (b"text\nok\n\"", 3),
            (b"\xef\xbb\xbf\"text\nok", 1),
        ] {
            let error = rows(bytes, "text").unwrap_err();
            assert!(error.contains(&format!("the quote in line {line} of x.csv is not closed")), "{error}");
        }
        // These are closed, or no quotes of a field.
        let bytes = b"text,n\n\"a\"\"\",1\nb\"c,2\n\"d\"e,3\n\"\",4\n\"f\",5";
        assert_eq!(rows(bytes, "text").unwrap(), ["a\"", "b\"c", "de", "", "f"]);
        assert_eq!(rows(b"\xef\xbb\xbf\"text\"\n\"x, y\"", "text").unwrap(), ["x, y"]);
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
