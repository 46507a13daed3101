//! The contract's own table of cases, on every instruction set this CPU has.
//!
//! Under emulation (`MLXT_EMULATED` is set: scripts/check-neon) only the small cases: the others would take an hour.

use mlxt_backend::conformance::{Case, Operation};
use mlxt_backend::{Backend, Precision, conformance};
use mlxt_cpu::{Cpu, CpuOptions, Isa};

fn cases() -> Vec<Case> {
    let mut cases = conformance::cases();
    if std::env::var_os("MLXT_EMULATED").is_some() {
        cases.retain(|case| !case.timed);
    }
    cases
}

fn check(isa: Isa) {
    if Isa::available().all(|available| available != isa) {
        println!("not checked: this CPU has no {isa}");
        return;
    }
    let cases = cases();
    let cpu = Cpu::new(CpuOptions { threads: Some(2), isa: Some(isa), ..CpuOptions::default() });
    assert!(cpu.is_ok(), "{isa}: {cpu:?}");
    let Ok(cpu) = cpu else { return };
    let product = |o: &Operation| matches!(o, Operation::Linear { .. } | Operation::PackedLinear { .. });
    let linear: Vec<_> = cases.iter().filter(|case| product(&case.operation)).cloned().collect();
    // Only products see how weights are kept.
    for (precision, cases) in [(Precision::F32, cases), (Precision::Bf16, linear.clone()), (Precision::F16, linear)] {
        let report = conformance::check_cases(&cpu, precision, cases);
        assert!(report.passed(), "{isa}, {precision}: {report}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx512_conforms() {
    check(Isa::Avx512);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx2_conforms() {
    check(Isa::Avx2);
}

#[test]
#[cfg(target_arch = "aarch64")]
fn neon_conforms() {
    check(Isa::Neon);
}

/// In what this CPU is fastest in for each precision: where that is bfloat16 and not f32, of products or of attention.
#[test]
fn the_fastest_arithmetic_conforms() {
    for precision in [Precision::Bf16, Precision::Int8, Precision::Q4] {
        let arithmetic = Cpu::arithmetic(precision);
        let cpu = Cpu::new(CpuOptions { threads: Some(2), arithmetic, ..CpuOptions::default() });
        assert!(cpu.is_ok(), "{cpu:?}");
        let Ok(cpu) = cpu else { continue };
        assert_eq!(cpu.info().arithmetic, arithmetic);
        let report = conformance::check_cases(&cpu, precision, cases());
        assert!(report.passed(), "{precision}, {arithmetic}: {report}");
    }
}

#[test]
fn scalar_conforms() {
    check(Isa::Scalar);
}
