//! What text for people has in common. Everything else about it is a record's own.

use std::fmt::{Arguments, Write};

/// Values of a vector that are shown.
const SHOWN: usize = 6;

/// Text for people, written piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// Adds a piece.
    pub(crate) fn add(&mut self, piece: Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(piece);
    }

    /// Adds a piece and ends the line.
    pub(crate) fn line(&mut self, piece: Arguments<'_>) {
        self.add(piece);
        self.0.push('\n');
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A vector's length (its norm) and its first values, aligned.
pub(crate) fn shown(vector: &[f32]) -> String {
    let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let values: Vec<String> = vector.iter().take(SHOWN).map(|x| format!("{x:>8.4}")).collect();
    let more = if vector.len() > SHOWN { " .." } else { "" };
    format!("{norm:>8.4}  {}{more}", values.join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_vector_is_its_length_and_its_start() {
        assert_eq!(super::shown(&[3.0, -4.0]), "  5.0000    3.0000  -4.0000");
        assert!(super::shown(&[0.5; 9]).ends_with("   0.5000 .."));
    }
}
