//! JSON lines: an object per line, of which some strings are the texts. Blank lines between objects are skipped.

use std::io::BufRead;

use anyhow::Result;
use serde_json::{Map, Value};

use super::text::Lines;
use super::{BadRow, Reader};

/// The texts of some columns.
pub(super) struct Objects {
    lines: Lines,
    columns: Vec<String>,
}

impl Objects {
    /// Strings called as `columns` in the objects of `reader`, which errors call `name`.
    pub(super) fn new(reader: Box<dyn BufRead>, name: String, columns: Vec<String>) -> Self {
        Self { lines: Lines::new(reader, name), columns }
    }

    fn texts(&self, line: &str) -> Result<Vec<String>> {
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| {
            // Its own place is within the line, of which there is one.
            let (text, within) = (e.to_string(), format!(" at line {} column {}", e.line(), e.column()));
            let what = text.strip_suffix(&within).unwrap_or(&text);
            BadRow::error(format!("{} is not a JSON object: {what} (byte {})", self.lines.place(), e.column()))
        })?;
        self.columns.iter().map(|column| self.text(&object, column)).collect()
    }

    fn text(&self, object: &Map<String, Value>, column: &str) -> Result<String> {
        let place = self.lines.place();
        let found = match object.get(column) {
            Some(Value::String(text)) => return Ok(text.clone()),
            Some(Value::Null) => "is null",
            Some(Value::Bool(_)) => "is a boolean",
            Some(Value::Number(_)) => "is a number",
            Some(Value::Array(_)) => "is an array",
            Some(Value::Object(_)) => "is an object",
            None => {
                let keys = super::shortened(object.keys());
                return Err(BadRow::error(format!("{place} has no \"{column}\", only {keys}: choose with --column")));
            }
        };
        Err(BadRow::error(format!("\"{column}\" {found} in {place}, expected a string")))
    }
}

impl Reader for Objects {
    fn read(&mut self) -> Result<Option<Vec<String>>> {
        while let Some(line) = self.lines.line()? {
            if !line.trim_ascii().is_empty() {
                return self.texts(&line).map(Some);
            }
        }
        Ok(None)
    }

    fn number(&self) -> u64 {
        self.lines.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &'static [u8]) -> Vec<Result<String, String>> {
        let mut objects = Objects::new(Box::new(bytes), "x.jsonl".into(), vec!["text".into()]);
        let read = || objects.read().map(|row| row.map(|texts| texts.concat())).map_err(|e| e.to_string());
        std::iter::repeat_with(read).map_while(Result::transpose).collect()
    }

    #[test]
    fn the_column_of_every_object() {
        let found = texts(b"{\"text\": \"a\\n\\u00fc\", \"n\": [1]}\r\n\n{\"id\": 1, \"text\": \"\"}");
        assert_eq!(found, [Ok("a\n\u{fc}".to_owned()), Ok(String::new())]);
    }

    #[test]
    fn errors_name_line_and_column() {
        let found = texts(b"{\"text\": 1}\n{\"title\": \"\"}\n[1]\n{\"text\": \"\\ud800\"}\n");
        let errors: Vec<String> = found.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(errors[0], "\"text\" is a number in line 1 of x.jsonl, expected a string");
        assert_eq!(errors[1], "line 2 of x.jsonl has no \"text\", only \"title\": choose with --column");
        assert!(errors[2].starts_with("line 3 of x.jsonl is not a JSON object: "), "{}", errors[2]);
        assert_eq!(errors.len(), 4);
        assert!(errors[3].starts_with("line 4 of x.jsonl is not a JSON object: "), "{}", errors[3]);
    }
}
