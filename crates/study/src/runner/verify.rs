//! Compares a result with the golden one, value by value, as files of any size.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::protocol::Shape;
use crate::record::{Check, Failure};
use crate::worker::failure;

/// How far two right results of one computation may be apart, by what was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// A whole encoder.
    Model,
    /// An operation whose longest sum has so many terms.
    Operation {
        /// Terms of a sum.
        terms: usize,
    },
}

/// What is allowed: a largest difference and a least cosine.
struct Allowed {
    max_abs: f64,
    min_cosine: f64,
}

impl Limit {
    /// In 32-bit floats every value counts. Rounded weights and activations may move values but not directions; how
    /// much they do is recorded beside the time.
    fn allowed(self, dtype: &str, largest: f64) -> Allowed {
        let scale = match self {
            Self::Model => 1e-4 * largest.max(1.0),
            // A plain sum of n normal terms is of size √n and rounds n times by up to 6e-8 of what it has reached: about
            // √n times that if the roundings are of either sign, and some times more where terms repeat (ScatterSum).
            Self::Operation { terms } => {
                let growth = if terms > 1 { (terms as f64).sqrt() } else { 0.0 };
                (largest + growth) * (5e-7 * growth).max(1e-5)
            }
        };
        match dtype {
            "f32" => Allowed { max_abs: scale, min_cosine: 0.9999 },
            "tf32" => Allowed { max_abs: f64::INFINITY, min_cosine: 0.9999 },
            "f16" | "bf16" => Allowed { max_abs: f64::INFINITY, min_cosine: 0.99 },
            _ => Allowed { max_abs: f64::INFINITY, min_cosine: 0.9 },
        }
    }
}

/// Compares `found` with `expected`, both a file and the shape it is said to have.
pub(super) fn compare(
    expected: (&Path, &Shape),
    found: (&Path, &Shape),
    dtype: &str,
    limit: Limit,
    golden: String,
) -> Result<Check, Failure> {
    let wrong = |what| failure("verify", what);
    if expected.1 != found.1 {
        let (expected, found) = (expected.1, found.1);
        return Err(wrong(format!(
            "the result is {} {:?} and should be {} {:?}",
            found.dtype, found.shape, expected.dtype, expected.shape
        )));
    }
    let shape = expected.1;
    let unread = |e: io::Error| failure("output", format!("the result cannot be read: {e}"));
    let mut files = [Values::open(expected.0, shape).map_err(unread)?, Values::open(found.0, shape).map_err(unread)?];
    // A single row where there is one dimension or none.
    let cols = if shape.shape.len() > 1 { shape.shape[shape.shape.len() - 1] } else { shape.len() };
    let mut check = Check { golden, max_abs: 0.0, largest: 0.0, min_cosine: 1.0 };
    let [mut a, mut b] = [Vec::new(), Vec::new()];
    for row in 0..shape.len() / cols.max(1) {
        files[0].row(cols, &mut a).map_err(unread)?;
        files[1].row(cols, &mut b).map_err(unread)?;
        let [mut products, mut a_squares, mut b_squares] = [0.0; 3];
        for (col, (&a, &b)) in a.iter().zip(&b).enumerate() {
            if !b.is_finite() || !a.is_finite() {
                return Err(wrong(format!("row {row}, column {col} is {b} and should be {a}")));
            }
            check.max_abs = check.max_abs.max((a - b).abs());
            check.largest = check.largest.max(a.abs());
            products += a * b;
            a_squares += a * a;
            b_squares += b * b;
        }
        if cols > 1 && (a_squares > 0.0 || b_squares > 0.0) {
            let lengths = (a_squares * b_squares).sqrt();
            check.min_cosine = check.min_cosine.min(if lengths > 0.0 { products / lengths } else { 0.0 });
        }
    }
    let mut allowed = limit.allowed(dtype, check.largest);
    if shape.dtype == "i32" {
        allowed.max_abs = 0.0;
    }
    if check.max_abs > allowed.max_abs || check.min_cosine < allowed.min_cosine {
        return Err(wrong(format!(
            "not the golden values: off by up to {:.1e} (allowed {:.1e}, of values up to {:.1e}), least cosine {:.6} (allowed {})",
            check.max_abs, allowed.max_abs, check.largest, check.min_cosine, allowed.min_cosine
        )));
    }
    Ok(check)
}

/// The values of a file, in order.
struct Values {
    file: BufReader<File>,
    integers: bool,
    bytes: Vec<u8>,
}

impl Values {
    fn open(path: &Path, shape: &Shape) -> io::Result<Self> {
        let file = File::open(path)?;
        let (size, expected) = (file.metadata()?.len(), 4 * shape.len() as u64);
        if size != expected {
            return Err(io::Error::other(format!("the file has {size} bytes and should have {expected}")));
        }
        Ok(Self { file: BufReader::with_capacity(1 << 20, file), integers: shape.dtype == "i32", bytes: Vec::new() })
    }

    fn row(&mut self, cols: usize, row: &mut Vec<f64>) -> io::Result<()> {
        self.bytes.resize(4 * cols, 0);
        self.file.read_exact(&mut self.bytes)?;
        row.clear();
        let values = self.bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        if self.integers {
            row.extend(values.map(|b| f64::from(i32::from_le_bytes(b))));
        } else {
            row.extend(values.map(|b| f64::from(f32::from_le_bytes(b))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(a: &[f32], b: &[f32], dtype: &str, limit: Limit) -> Result<Check, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape::f32(&[a.len() / 2, 2]);
        let write = |name: &str, values: &[f32]| {
            let path = folder.path().join(name);
            std::fs::write(&path, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
            path
        };
        compare((&write("a", a), &shape), (&write("b", b), &shape), dtype, limit, "g".into())
    }

    #[test]
    fn right_values_pass_with_their_error() {
        let check = verdict(&[1.0, -4.0, 0.0, 0.0], &[1.0, -4.0001, 0.0, 0.0], "f32", Limit::Model).unwrap();
        assert!((check.max_abs - 1e-4).abs() < 1e-6 && check.largest == 4.0 && check.min_cosine > 0.999_999);
    }

    #[test]
    fn wrong_values_do_not() {
        let model = Limit::Model;
        for (bad, dtype) in [
            ([1.0, -4.1], "f32"),
            ([-4.0, 1.0], "int8"),
            ([f32::NAN, -4.0], "int8"),
            ([f32::INFINITY, -4.0], "bf16"),
            ([0.0, 0.0], "int8"),
            ([2.5, -4.0], "bf16"),
        ] {
            let failed = verdict(&[1.0, -4.0], &bad, dtype, model).unwrap_err();
            assert_eq!(failed.stage, "verify", "{bad:?} {failed:?}");
        }
    }

    /// D1: a softmax over everything instead of the last axis has far smaller values, all of them near 0.
    #[test]
    fn a_result_along_another_axis_is_not_near_enough() {
        let golden = [0.9, 0.1, 0.2, 0.8].map(|x: f32| x * 1e-6);
        let other = [0.45, 0.05, 0.1, 0.4].map(|x: f32| x * 1e-6);
        assert!(verdict(&golden, &other, "f32", Limit::Operation { terms: 1 }).is_err());
        assert!(verdict(&golden, &golden, "f32", Limit::Operation { terms: 1 }).is_ok());
    }

    #[test]
    fn files_that_are_not_what_they_are_said_to_be_are_failures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, [0; 12]).unwrap();
        let (three, four) = (Shape::f32(&[3]), Shape::f32(&[4]));
        let limit = Limit::Model;
        assert!(compare((&path, &three), (&path, &three), "f32", limit, "g".into()).is_ok());
        let short = compare((&path, &four), (&path, &four), "f32", limit, "g".into()).unwrap_err();
        assert!(short.message.contains("12 bytes") && short.message.contains("16"), "{short:?}");
        let other = compare((&path, &three), (&path, &four), "f32", limit, "g".into()).unwrap_err();
        assert_eq!(other.stage, "verify");
        let missing = compare((&path, &three), (&folder.path().join("y"), &three), "f32", limit, "g".into());
        assert_eq!(missing.unwrap_err().stage, "output");
    }

    #[test]
    fn indices_have_to_be_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, values: [i32; 3]| {
            let path = folder.path().join(name);
            std::fs::write(&path, values.map(i32::to_le_bytes).concat()).unwrap();
            path
        };
        let shape = Shape::i32(&[3]);
        let (a, b) = (write("a", [70_000, 2, 3]), write("b", [70_000, 2, 4]));
        let limit = Limit::Operation { terms: 1 };
        assert!(compare((&a, &shape), (&a, &shape), "f32", limit, "g".into()).is_ok());
        assert!(compare((&a, &shape), (&b, &shape), "f32", limit, "g".into()).is_err());
    }

    /// D8, D9, D10 of the first study: other maths, results thrown away, a mask that masks nothing.
    #[test]
    fn defects_of_the_first_study_are_found_by_their_values() {
        let sum = Limit::Operation { terms: 4 };
        let one = Limit::Operation { terms: 1 };
        // D8: the loss of logits where that of probabilities is asked for.
        let (p, y) = ([0.2_f32, 0.9, 0.6, 0.4], [0.0_f32, 1.0, 1.0, 0.0]);
        let loss = |f: &dyn Fn(f32) -> f32| {
            let each = p.iter().zip(y).map(|(&p, y)| -(y * f(p).ln() + (1.0 - y) * (1.0 - f(p)).ln()));
            each.sum::<f32>() / 4.0
        };
        let (right, wrong) = (loss(&|p| p), loss(&|p| 1.0 / (1.0 + (-p).exp())));
        assert!(verdict(&[right, right], &[right, right], "f32", one).is_ok());
        assert!(verdict(&[right, right], &[wrong, wrong], "f32", one).is_err());
        // D9: zeros, or what was there before, where sums and maxima should be.
        assert!(verdict(&[1.5, -2.0, 0.25, 3.0], &[0.0; 4], "f32", sum).is_err());
        // D10: attention of two queries to two values, the first of which may see the first only.
        let values = [[1.0_f32, 0.0], [0.0, 1.0]];
        let mix = |a: f32| [a * values[0][0] + (1.0 - a) * values[1][0], a * values[0][1] + (1.0 - a) * values[1][1]];
        let (causal, open) = ([mix(1.0), mix(0.5)].concat(), [mix(0.5), mix(0.5)].concat());
        assert!(verdict(&causal, &causal, "f32", one).is_ok());
        assert!(verdict(&causal, &open, "f32", one).is_err());
    }
}
