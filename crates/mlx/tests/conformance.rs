//! The contract's own tables of cases on mlx:cpu: with rows as they are, and with room for more.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;
#[path = "common/opened.rs"]
mod opened;

use mlxt_backend::conformance::{Operation, Why};
use mlxt_backend::{Arithmetic, Backend as _, Error, Precision, conformance, operations};
use mlxt_mlx::{MlxOptions, PRECISIONS, Room};

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
fn the_contract_holds_in_16_bits() {
    for arithmetic in [Arithmetic::F16, Arithmetic::Bf16] {
        let Some(mlx) = opened::mlx(MlxOptions { arithmetic, ..MlxOptions::default() }) else { return };
        // On the CPU products of 16 bits are plain loops: the large cases are for a GPU (examples/conformance.rs).
        for precision in PRECISIONS {
            let small = conformance::cases().into_iter().filter(|case| !case.timed);
            let asked = |case: &conformance::Case| precision == Precision::F32 || is_linear(case);
            let report = conformance::check_cases(&mlx, precision, small.filter(asked).collect());
            println!("{precision}, {arithmetic}: {report}");
            assert!(report.passed(), "{precision}, {arithmetic}: {report}");
        }
    }
}

fn is_linear(case: &conformance::Case) -> bool {
    matches!(case.operation, Operation::Linear { .. } | Operation::PackedLinear { .. })
}

#[test]
fn products_conform_in_every_precision() {
    let Some(mlx) = opened::mlx(MlxOptions::default()) else { return };
    let linear = || conformance::cases().into_iter().filter(is_linear).collect();
    for precision in PRECISIONS {
        let report = conformance::check_cases(&mlx, precision, linear());
        assert!(report.passed(), "{precision}: {report}");
    }
    let report = conformance::check_cases(&mlx, Precision::Tf32, linear());
    let refused = |why: &Why| matches!(why, Why::Refused(Error::UnsupportedPrecision { .. }));
    assert!(report.failures.iter().all(|failure| refused(&failure.why)), "{report}");
    assert_eq!(report.failures.len(), report.cases);
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
