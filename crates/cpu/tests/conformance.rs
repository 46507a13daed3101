//! The contract's own table of cases, on every instruction set this CPU has.

use mlxt_backend::conformance;
use mlxt_cpu::{Cpu, CpuOptions, Isa};

fn check(isa: Isa) {
    if Isa::available().all(|available| available != isa) {
        println!("skipped: this CPU has no {isa}");
        return;
    }
    let report = Cpu::new(CpuOptions { threads: Some(2), isa: Some(isa) }).map(|cpu| conformance::check(&cpu));
    assert!(report.as_ref().is_ok_and(conformance::Report::passed), "{isa}: {report:?}");
}

#[test]
fn avx512_conforms() {
    check(Isa::Avx512);
}

#[test]
fn avx2_conforms() {
    check(Isa::Avx2);
}

#[test]
fn neon_conforms() {
    check(Isa::Neon);
}

#[test]
fn scalar_conforms() {
    check(Isa::Scalar);
}
