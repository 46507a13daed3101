//! The report as one HTML page that needs nothing else: `page.css` and `page.js` are in it, and the data as JSON.

use serde::Serialize;

use super::method::{DEFECTS, Defect, METHOD};
use super::{Report, encoded};
use crate::figures::{self, Chart, PALETTE};
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
        regular = base64(figures::REGULAR),
        semibold = base64(figures::SEMIBOLD),
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

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | usize::from(three.get(i).copied().unwrap_or(0)));
        let digit =
            |place: usize| if place <= three.len() { char::from(DIGITS[bits >> (18 - 6 * place) & 63]) } else { '=' };
        out.extend((0..4).map(digit));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn no_text_of_a_record_ends_the_script_that_holds_it() {
        let text = "</script><!-- <script> & \u{2028} \\ \" '";
        let json = inert(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '>', '&', '\u{2028}']));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
