//! One table of cases that any implementation of [`Operations`] runs with one line.
//!
//! ```
//! use mlxt_backend::{Reference, operations::conformance};
//!
//! let report = conformance::check(&Reference);
//! assert!(report.passed() && report.unsupported.is_empty(), "{report}");
//! ```

use std::fmt;

use super::{Case, HostArray, Operations, Values, cases};
use crate::conformance::{Why, compare, note};
use crate::{Error, Reference, Result};

/// A case in which an implementation was wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What was wrong.
    pub why: Why,
}

/// The outcome of [`check`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Cases that were computed.
    pub cases: usize,
    /// Those that were wrong.
    pub failures: Vec<Failure>,
    /// Operations the implementation says it has not, by name.
    pub unsupported: Vec<&'static str>,
    /// The largest error of each operation, in units of its tolerance, over the cases that passed.
    pub closest: Vec<(&'static str, f64)>,
}

impl Report {
    /// Whether every case that was computed was right (and there were any).
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
        if !self.unsupported.is_empty() {
            writeln!(f, "not supported: {}", self.unsupported.join(", "))?;
        }
        Ok(())
    }
}

/// Runs every case and compares with [`Reference`].
pub fn check<O: Operations>(operations: &O) -> Report {
    let mut report = Report::default();
    for case in cases() {
        match check_case(operations, &case) {
            Err(Why::Refused(Error::Unsupported { .. })) => {
                let name = case.operation.name();
                if !report.unsupported.contains(&name) {
                    report.unsupported.push(name);
                }
                continue;
            }
            Ok(share) => note(&mut report.closest, case.operation.name(), share),
            Err(why) => report.failures.push(Failure { case, why }),
        }
        report.cases += 1;
    }
    report
}

fn check_case<O: Operations>(operations: &O, case: &Case) -> Result<f64, Why> {
    let inputs = case.inputs().map_err(Why::Refused)?;
    let found = result(operations, case, &inputs).map_err(Why::Refused)?;
    let expected = result(&Reference, case, &inputs).map_err(Why::Refused)?;
    let (want, got) = (expected.form(), found.form());
    if want != got {
        let words = |form| format!("{form:?}");
        return Err(Why::Form { expected: words(want), found: words(got) });
    }
    compare(&numbers(&expected), &numbers(&found), case.tolerance())
}

fn result<O: Operations>(operations: &O, case: &Case, inputs: &[HostArray]) -> Result<HostArray> {
    let upload = |(i, array)| operations.upload(&case.operation, i, array);
    let arrays = inputs.iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    let out = operations.run(&case.operation, &arrays.iter().collect::<Vec<_>>())?;
    operations.wait(&out)?;
    operations.download(&out)
}

/// The values, as floats: indices in the table are far below 2²⁴.
fn numbers(array: &HostArray) -> Vec<f32> {
    match array.values() {
        Values::F32(values) => values.clone(),
        Values::I32(values) => values.iter().map(|&v| v as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Operation;

    /// The reference with one operation replaced by another, and one left out.
    struct Wrong;

    impl Operations for Wrong {
        type Array = HostArray;

        fn upload(&self, _: &Operation, _: usize, array: &HostArray) -> Result<HostArray> {
            Ok(array.clone())
        }

        fn run(&self, operation: &Operation, inputs: &[&HostArray]) -> Result<HostArray> {
            match operation {
                Operation::Gelu => Reference.run(&Operation::GeluTanh, inputs),
                Operation::Rope => Err(Error::Unsupported { backend: "wrong", what: "RoPE".into() }),
                other => Reference.run(other, inputs),
            }
        }

        fn wait(&self, _: &HostArray) -> Result<()> {
            Ok(())
        }

        fn download(&self, array: &HostArray) -> Result<HostArray> {
            Ok(array.clone())
        }
    }

    #[test]
    fn what_is_wrong_or_missing_is_found() {
        let report = check(&Wrong);
        assert!(!report.passed());
        assert!(report.failures.iter().all(|f| f.case.operation == Operation::Gelu), "{report}");
        assert_eq!(report.unsupported, ["RoPE"]);
    }
}
