//! The report as one HTML page that needs nothing else: `page.css` and `page.js` are in it, and the data as JSON.

use serde::Serialize;

use super::method::{DEFECTS, Defect, METHOD};
use super::{Report, encoded};
use crate::figures::{Chart, PALETTE};
use crate::summary::Series;
use crate::tables::Table;

/// What the script draws.
#[derive(Serialize)]
struct Data<'a> {
    machines: Vec<&'a str>,
    cells: usize,
    samples: usize,
    failures: usize,
    palette: &'static [&'static str],
    series: &'a [Series],
    charts: &'a [Chart],
    tables: &'a [Table],
    method: &'static [(&'static str, &'static str)],
    defects: &'static [Defect],
}

pub(super) fn html(report: &Report) -> String {
    let Report { summary, tables, charts } = report;
    let data = Data {
        machines: summary.machines(),
        cells: summary.cells.len(),
        samples: summary.timings.iter().map(|timing| timing.count).sum(),
        failures: summary.failures.len(),
        palette: &PALETTE,
        series: &summary.series,
        charts,
        tables,
        method: &METHOD,
        defects: &DEFECTS,
    };
    let json = String::from_utf8_lossy(&encoded(&data)).into_owned();
    format!(
        include_str!("page.html"),
        style = include_str!("page.css"),
        data = inert(&json),
        script = include_str!("page.js")
    )
}

/// JSON that means the same and holds no character with which HTML could begin anything.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_record_ends_the_script_that_holds_it() {
        let text = "</script><!-- <script> & \u{2028} \\ \" '";
        let json = inert(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}']));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
