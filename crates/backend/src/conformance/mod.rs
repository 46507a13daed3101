//! One table of cases that any backend runs with one line, as checks and as timings.
//!
//! ```
//! use mlxt_backend::{Reference, conformance};
//!
//! let report = conformance::check(&Reference);
//! assert!(report.passed(), "{report}");
//! ```
//!
//! `cases.rs` is the table: what is run, on which sizes. `run.rs` runs one case on one backend. `tolerance.rs` says how
//! far from the reference a result may lie. `random.rs` makes the operands, the same on every machine. This module
//! compares ([`check`]) and times ([`time`]); a timing is only taken of a case whose values were right.

mod cases;
pub mod random;
mod run;
mod tolerance;

use std::fmt;
use std::time::{Duration, Instant};

pub use cases::{Case, Operation, RelativeTerm, cases};
pub use tolerance::{Tolerance, tolerance};

use crate::{Backend, Precision, Reference, Result};

/// A case in which a backend was wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What was wrong.
    pub why: Why,
}

/// How a backend was wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Why {
    /// It refused the case.
    #[error("{0}")]
    Refused(crate::Error),
    /// Its result has another number of values.
    #[error("{found} values instead of {expected}")]
    Size {
        /// The reference's number.
        expected: usize,
        /// The backend's.
        found: usize,
    },
    /// Its result has another shape or holds something else.
    #[error("{found} instead of {expected}")]
    Form {
        /// The reference's shape and element type.
        expected: String,
        /// The backend's.
        found: String,
    },
    /// A value lies too far from the reference, or is not a number where the reference is.
    #[error(
        "value {at} is {found:e} instead of {expected:e}, {excess:.1} times the tolerance ({wrong} of {of} values)"
    )]
    Value {
        /// The value that is furthest off.
        at: usize,
        /// The reference's value.
        expected: f32,
        /// The backend's.
        found: f32,
        /// Its distance in units of what is allowed.
        excess: f64,
        /// Values out of tolerance.
        wrong: usize,
        /// Values in all.
        of: usize,
    },
}

/// The outcome of [`check`].
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Cases that ran.
    pub cases: usize,
    /// Those that were wrong.
    pub failures: Vec<Failure>,
    /// The largest error of each operation, in units of its tolerance, over the cases that passed.
    pub closest: Vec<(&'static str, f64)>,
}

impl Report {
    /// Whether every case was right (and there were any).
    #[must_use]
    pub fn passed(&self) -> bool {
        self.cases > 0 && self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {} cases passed", self.cases - self.failures.len(), self.cases)?;
        for failure in &self.failures {
            writeln!(f, "{}: {}", failure.case, failure.why)?;
        }
        for (operation, share) in &self.closest {
            writeln!(f, "{operation}: {:.0} % of the tolerance used", share * 100.0)?;
        }
        Ok(())
    }
}

/// How long one case takes on a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The case.
    pub case: Case,
    /// Every sample taken, from operands on the device to the result on the device, in the order taken.
    pub samples: Vec<Duration>,
    /// Floating point operations of the case, counting a multiply-add as two; 0 where counting says nothing.
    pub flops: u64,
}

impl Timing {
    /// The median sample.
    #[must_use]
    pub fn median(&self) -> Duration {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

/// Runs every case at [`Precision::F32`] and compares with [`Reference`].
pub fn check<B: Backend>(backend: &B) -> Report {
    check_at(backend, Precision::F32)
}

/// Runs every case with weights in `precision` and compares with [`Reference`]: on the same weights, rounded, where a
/// weight is a number by itself ([`Precision::element`]), on the unrounded ones where it is not or where they came packed.
/// Operands are numbers that the backend's [`crate::Arithmetic`] can keep, and what it rounds besides is allowed for.
pub fn check_at<B: Backend>(backend: &B, precision: Precision) -> Report {
    check_cases(backend, precision, cases())
}

/// Runs the given cases only. Those that are not [`field@Case::timed`] are small: they run in seconds where an emulated
/// processor would take minutes for the table.
pub fn check_cases<B: Backend>(backend: &B, precision: Precision, cases: Vec<Case>) -> Report {
    let mut report = Report { cases: cases.len(), failures: Vec::new(), closest: Vec::new() };
    for case in cases {
        match check_case(backend, &case, precision) {
            Ok(share) => note(&mut report.closest, case.operation.name(), share),
            Err(why) => report.failures.push(Failure { case, why }),
        }
    }
    report
}

/// Times every case that is marked as worth timing and whose values are right, each for about `budget` (at least three
/// samples, after one warm-up). Wrong cases are in the report and have no timing.
pub fn time<B: Backend>(backend: &B, precision: Precision, budget: Duration) -> (Report, Vec<Timing>) {
    let timed: Vec<Case> = cases().into_iter().filter(|c| c.timed).collect();
    let mut report = Report { cases: timed.len(), failures: Vec::new(), closest: Vec::new() };
    let mut timings = Vec::new();
    for case in timed {
        let outcome = check_case(backend, &case, precision)
            .and_then(|share| Ok((share, sample(backend, &case, precision, budget).map_err(Why::Refused)?)));
        match outcome {
            Ok((share, samples)) => {
                note(&mut report.closest, case.operation.name(), share);
                timings.push(Timing { flops: case.operation.flops(), case, samples });
            }
            Err(why) => report.failures.push(Failure { case, why }),
        }
    }
    (report, timings)
}

fn check_case<B: Backend>(backend: &B, case: &Case, precision: Precision) -> Result<f64, Why> {
    let packed = matches!(case.operation, Operation::PackedLinear { .. });
    let rounded = matches!(precision, Precision::Bf16 | Precision::F16);
    let kept = if rounded && !packed { precision } else { Precision::F32 };
    let arithmetic = backend.info().arithmetic;
    let operands = arithmetic.activations();
    let expected = run::prepare(&Reference, case, kept, operands).and_then(|p| p.result()).map_err(Why::Refused)?;
    let found = run::prepare(backend, case, precision, operands).and_then(|p| p.result()).map_err(Why::Refused)?;
    compare(&expected, &found, tolerance(&case.operation, precision, arithmetic))
}

fn sample<B: Backend>(backend: &B, case: &Case, precision: Precision, budget: Duration) -> Result<Vec<Duration>> {
    let prepared = run::prepare(backend, case, precision, backend.info().arithmetic.activations())?;
    prepared.run()?;
    let started = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || started.elapsed() < budget {
        samples.push(prepared.run()?);
    }
    Ok(samples)
}

/// The largest error in units of the tolerance, at most 1.
pub(crate) fn compare(expected: &[f32], found: &[f32], tolerance: Tolerance) -> Result<f64, Why> {
    if expected.len() != found.len() {
        return Err(Why::Size { expected: expected.len(), found: found.len() });
    }
    let excess = |(&want, &got): (&f32, &f32)| tolerance.share(want, got);
    let shares: Vec<f64> = expected.iter().zip(found).map(excess).collect();
    let wrong = shares.iter().filter(|&&s| s > 1.0).count();
    let worst = shares.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        Some((at, excess)) if excess > 1.0 => {
            Err(Why::Value { at, expected: expected[at], found: found[at], excess, wrong, of: shares.len() })
        }
        worst => Ok(worst.map_or(0.0, |(_, share)| share)),
    }
}

/// Keeps the largest share of each operation.
pub(crate) fn note(closest: &mut Vec<(&'static str, f64)>, operation: &'static str, share: f64) {
    match closest.iter_mut().find(|(name, _)| *name == operation) {
        Some((_, largest)) => *largest = largest.max(share),
        None => closest.push((operation, share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_agrees_with_itself() {
        let report = check(&Reference);
        assert!(report.passed(), "{report}");
        assert!(report.closest.iter().all(|(_, share)| *share == 0.0), "{report}");
    }

    #[test]
    fn wrong_values_are_found() {
        let t = Tolerance { absolute: 1e-3, relative: 0.0 };
        assert!(compare(&[1.0, 2.0], &[1.0005, 2.0], t).is_ok());
        assert!(matches!(compare(&[1.0], &[1.0, 1.0], t), Err(Why::Size { .. })));
        assert!(matches!(compare(&[1.0, 2.0], &[1.0, 2.1], t), Err(Why::Value { at: 1, wrong: 1, .. })));
        assert!(matches!(compare(&[1.0], &[f32::NAN], t), Err(Why::Value { .. })));
        assert!(matches!(compare(&[1.0], &[f32::INFINITY], t), Err(Why::Value { .. })));
    }

    #[test]
    fn timings_have_samples_and_operations_to_count() {
        let case = Case::new(Operation::linear(2, 8, 4));
        let samples = sample(&Reference, &case, Precision::F32, Duration::ZERO).unwrap();
        assert_eq!(samples.len(), 3);
        assert!(samples.iter().all(|s| !s.is_zero()));
        assert_eq!(case.operation.flops(), 2 * 2 * 8 * 4);
    }
}
