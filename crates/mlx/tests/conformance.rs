//! The contract's own tables of cases on mlx:cpu: with rows as they are, and with room for more.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;
#[path = "common/opened.rs"]
mod opened;

use mlxt_backend::conformance::{Operation, Why};
use mlxt_backend::{Backend as _, Error, Precision, conformance, operations};
use mlxt_mlx::{MlxOptions, Room};

fn check(room: Room) {
    let Some(mlx) = opened::mlx(MlxOptions { room: Some(room), ..MlxOptions::default() }) else { return };
    let report = conformance::check(&mlx);
    println!("{report}");
    assert!(report.passed(), "{room:?}: {report}");
}

#[test]
fn the_contract_holds() {
    check(Room::Exact);
}

#[test]
fn the_contract_holds_with_spare_rows() {
    check(Room::Rounded);
}

#[test]
fn products_conform_in_every_precision() {
    let Some(mlx) = opened::mlx(MlxOptions::default()) else { return };
    let linear =
        |case: &conformance::Case| matches!(case.operation, Operation::Linear { .. } | Operation::PackedLinear { .. });
    for (precision, _) in Precision::ALL {
        let cases: Vec<_> = conformance::cases().into_iter().filter(linear).collect();
        let report = conformance::check_cases(&mlx, precision, cases);
        if precision == Precision::Tf32 {
            // MLX takes TF32 or f32 for a whole process, by a variable that is read once.
            let refused = |why: &Why| matches!(why, Why::Refused(Error::UnsupportedPrecision { .. }));
            assert!(report.failures.iter().all(|failure| refused(&failure.why)), "{report}");
            assert_eq!(report.failures.len(), report.cases);
        } else {
            assert!(report.passed(), "{precision}: {report}");
        }
    }
}

#[test]
fn operations_conform() {
    let Some(mlx) = opened::mlx(MlxOptions::default()) else { return };
    let report = operations::conformance::check(&mlx);
    println!("{report}");
    assert!(report.passed() && report.unsupported.is_empty(), "{report}");
}

#[test]
fn it_says_what_it_is() {
    let Some(mlx) = opened::mlx(MlxOptions::default()) else { return };
    let info = mlx.info();
    assert_eq!(info.device, "mlx:cpu");
    assert!(!info.hardware.is_empty() && info.detail.starts_with("MLX 0."), "{info:?}");
    // The wheels' own BLAS would be 60 times slower.
    #[cfg(target_os = "linux")]
    assert!(info.detail.contains("products by mlxt-cpu"), "{info:?}");
}
