//! JSON lines: an object per line, of which one string is the text. Blank lines between objects are skipped.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::text::Lines;

/// The texts of one column.
pub(super) struct Objects {
    lines: Lines,
    column: String,
}

impl Objects {
    /// Strings called `column` in the objects of `reader`, which errors call `name`.
    pub(super) fn new(reader: Box<dyn BufRead>, name: String, column: String) -> Self {
        Self { lines: Lines::new(reader, name), column }
    }

    fn text(&self, line: &str) -> Result<String> {
        let mut object: Map<String, Value> =
            serde_json::from_str(line).with_context(|| format!("{} is not a JSON object", self.lines.place()))?;
        let found = match object.remove(&self.column) {
            Some(Value::String(text)) => return Ok(text),
            Some(Value::Null) => "is null",
            Some(Value::Bool(_)) => "is a boolean",
            Some(Value::Number(_)) => "is a number",
            Some(Value::Array(_)) => "is an array",
            Some(Value::Object(_)) => "is an object",
            None => {
                let keys = super::shortened(object.keys());
                bail!("{} has no \"{}\", only {keys}: choose with --column", self.lines.place(), self.column)
            }
        };
        bail!("\"{}\" {found} in {}, expected a string", self.column, self.lines.place())
    }
}

impl Iterator for Objects {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next()? {
                Ok(line) if line.trim_ascii().is_empty() => {}
                Ok(line) => return Some(self.text(&line)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &'static [u8]) -> Vec<Result<String, String>> {
        let objects = Objects::new(Box::new(bytes), "x.jsonl".into(), "text".into());
        objects.map(|t| t.map_err(|e| format!("{e:#}"))).collect()
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
        assert!(errors[3].starts_with("line 4 of x.jsonl is not a JSON object: "), "{}", errors[3]);
    }
}
