//! Lines of text. An empty line is an empty text, so that line numbers and result indices agree.

use std::io::BufRead;

use anyhow::{Context, Result, bail};

use super::{BadRow, Reader};

/// The longest line, in bytes. It bounds memory when something that is not text is given (a device, a binary file).
const LONGEST: u64 = 1 << 28;

/// A byte order mark: what some programs begin a file of UTF-8 with.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// A reader of lines, without their ends (`\n` or `\r\n`) and without a byte order mark.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    name: String,
    number: u64,
}

impl Lines {
    /// Lines of `reader`, which errors call `name`.
    pub(super) fn new(reader: Box<dyn BufRead>, name: String) -> Self {
        Self { reader, name, number: 0 }
    }

    /// Where the last line stood, for errors.
    pub(super) fn place(&self) -> String {
        format!("line {} of {}", self.number, self.name)
    }

    /// The next line.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut limited = std::io::Read::take(&mut self.reader, LONGEST);
        let read = limited.read_until(b'\n', &mut bytes).with_context(|| format!("cannot read {}", self.name))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        } else if read as u64 == LONGEST {
            bail!("{} is longer than {} MiB: not lines of text", self.place(), LONGEST >> 20);
        }
        if self.number == 1 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
            if read == BOM.len() {
                // A file that has nothing else has no line.
                return Ok(None);
            }
        }
        match String::from_utf8(bytes) {
            Ok(line) => Ok(Some(line)),
            Err(e) => {
                let byte = e.utf8_error().valid_up_to() + 1;
                Err(BadRow::error(format!("{} is not UTF-8 (byte {byte})", self.place())))
            }
        }
    }
}

impl Reader for Lines {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        Ok(self.line()?.map(|line| vec![line]))
    }

    fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<String> {
        let mut lines = Lines::new(Box::new(bytes), "x".into());
        std::iter::from_fn(|| lines.line().unwrap()).collect()
    }

    #[test]
    fn ends_empty_lines_and_marks() {
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"\n"), [""]);
        assert_eq!(lines(b"a\r\n\r\nb\rc\n\nlast"), ["a", "", "b\rc", "", "last"]);
        assert_eq!(lines(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n"), ["a", "\u{feff}b"]);
        assert_eq!(lines(b"\xef\xbb\xbf"), [""; 0]);
        assert_eq!(lines(b"\xef\xbb\xbf\n"), [""]);
        assert_eq!(lines(b"a\0b\n"), ["a\0b"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named() {
        let mut lines = Lines::new(Box::new(&b"ok\nab\xff\nmore"[..]), "x.txt".into());
        assert_eq!(lines.line().unwrap().unwrap(), "ok");
        let error = lines.line().unwrap_err();
        assert!(error.is::<BadRow>());
        assert_eq!(error.to_string(), "line 2 of x.txt is not UTF-8 (byte 3)");
        assert_eq!(lines.line().unwrap().unwrap(), "more");
    }
}
