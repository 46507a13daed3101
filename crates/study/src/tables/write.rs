//! A table as Markdown or plain text, for people, and as CSV, for programs: the same lines, rounded for people only.

use super::{Field, Table};

/// With its title and note; numbers as they are read.
#[must_use]
pub fn markdown(table: &Table) -> String {
    let line = |fields: Vec<String>| format!("| {} |\n", fields.join(" | "));
    let titles = line(table.columns.iter().map(|column| inline(&column.title)).collect());
    let rule = line(table.columns.iter().map(|column| if column.numeric { "--:" } else { ":--" }.into()).collect());
    let lines = table.lines.iter().map(|row| line(row.fields.iter().map(|field| text(field, row.total)).collect()));
    let head = format!("## {}\n\n{}\n\n{titles}{rule}", inline(&table.title), inline(&table.note));
    head + &lines.collect::<String>()
}

/// For a terminal: the title and what its numbers are, then columns side by side, numbers to the right. Where there is no number, a
/// dash.
#[must_use]
pub fn plain(table: &Table) -> String {
    let field = |field: &Field| match field {
        Field::Number { text, .. } | Field::Text(text) => one_line(text),
        Field::Missing { .. } => "-".into(),
    };
    let titles = table.columns.iter().map(|column| one_line(&column.title)).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(titles).chain(table.lines.iter().map(|line| line.fields.iter().map(field).collect())).collect();
    let wide = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table.columns.len()).map(wide).collect();
    let unit = table.note.split_inclusive(". ").next().unwrap_or_default();
    let mut out = format!("{}: {}\n", one_line(&table.title), one_line(unit));
    for line in &lines {
        let fields = line.iter().zip(&table.columns).zip(&widths).map(|((text, column), &width)| {
            if column.numeric { format!("  {text:>width$}") } else { format!("  {text:<width$}") }
        });
        out += fields.collect::<String>().trim_end();
        out.push('\n');
    }
    out
}

/// Numbers in full; where there is none, the reason.
#[must_use]
pub fn csv(table: &Table) -> String {
    let line = |fields: Vec<String>| fields.join(",") + "\n";
    let field = |field: &Field| match field {
        Field::Number { value, .. } => value.to_string(),
        Field::Text(text) | Field::Missing { why: text, .. } => quoted(text),
    };
    let titles = line(table.columns.iter().map(|column| quoted(&column.title)).collect());
    titles + &table.lines.iter().map(|row| line(row.fields.iter().map(field).collect())).collect::<String>()
}

fn text(field: &Field, total: bool) -> String {
    match field {
        Field::Number { text, .. } | Field::Text(text) if total && !text.is_empty() => format!("**{}**", inline(text)),
        Field::Number { text, .. } | Field::Text(text) => inline(text),
        Field::Missing { why, .. } => format!("*{}*", inline(why)),
    }
}

/// Text that Markdown takes for nothing else, in one line.
pub(crate) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.trim().chars() {
        match char {
            '\n' | '\r' | '\t' => out.push(' '),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '#' => out.extend(['\\', char]),
            _ => out.push(char),
        }
    }
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As RFC 4180 wants it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::{Best, Column, Line};
    use super::*;

    fn table(message: &str) -> Table {
        let fields = vec![Field::text(message), Field::number(1.0 / 3.0), Field::missing("not run")];
        Table {
            id: "x".into(),
            title: "X".into(),
            note: String::new(),
            long: false,
            best: Best::None,
            columns: vec![Column::text("what"), Column::number("ms"), Column::number("other")],
            lines: vec![Line { subject: None, series: None, total: true, fields }],
        }
    }

    #[test]
    fn no_message_breaks_a_line_or_a_column_of_markdown() {
        let text = markdown(&table("a | b\n<script>*x*"));
        let line = text.lines().last().unwrap();
        assert_eq!(line, r"| **a \| b \<script\>\*x\*** | **0.333** | *not run* |");
    }

    #[test]
    fn plain_columns_line_up() {
        let table = Table { note: "Milliseconds. More.".into(), ..table("a\n| b") };
        assert_eq!(plain(&table), "X: Milliseconds.\n  what      ms  other\n  a | b  0.333      -\n");
    }

    #[test]
    fn csv_gives_back_what_was_put_in() {
        let text = csv(&table("a, \"b\"\nc"));
        assert_eq!(text, "what,ms,other\n\"a, \"\"b\"\"\nc\",0.3333333333333333,not run\n");
    }
}
