//! What the machine can do at most, measured: multiply-adds in registers and reading memory. What kernels are held against.
//!
//! No kernel: nothing here computes a result. Where an instruction set has no instruction for a dtype, there is no peak.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use mlxt_backend::Result;

use crate::MOST_THREADS;
use crate::threads::no_thread;

/// A machine's measured limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Peak of multiply-adds by dtype (`f32`, `bf16`, `f16`, `int8`), 10^9 operations per second, a multiply-add being two.
    pub gflops: Vec<(&'static str, f64)>,
    /// Reading memory, 10^9 bytes per second.
    pub gigabytes_per_second: f64,
}

impl Limits {
    /// The peak of multiply-adds in 32-bit floats.
    #[must_use]
    pub fn f32_gflops(&self) -> f64 {
        self.peak("f32").unwrap_or(0.0)
    }

    /// The peak of multiply-adds in a dtype, if the CPU has instructions for it.
    #[must_use]
    pub fn peak(&self, dtype: &str) -> Option<f64> {
        self.gflops.iter().find(|(name, _)| *name == dtype).map(|(_, peak)| *peak)
    }

    /// The least time for that many operations, of which `gflops` are done in a nanosecond, and that many bytes from memory, in
    /// milliseconds.
    #[must_use]
    pub fn milliseconds(&self, flops: f64, gflops: f64, bytes: f64) -> f64 {
        (flops / gflops).max(bytes / self.gigabytes_per_second) / 1e6
    }
}

/// Measures them on `threads` threads (at least one, at most [`MOST_THREADS`]); takes about a second and 512 MB.
///
/// # Errors
/// [`Error::Device`](mlxt_backend::Error::Device) if the system does not give as many threads.
pub fn limits(threads: usize) -> Result<Limits> {
    let threads = threads.clamp(1, MOST_THREADS);
    let peaks = peaks().into_iter().map(|(dtype, steps)| Ok((dtype, peak(threads, steps)?)));
    Ok(Limits { gflops: peaks.collect::<Result<_>>()?, gigabytes_per_second: read_peak(threads)? })
}

/// Runs that many steps of independent multiply-adds and gives the operations of one step.
type Steps = fn(usize) -> usize;

fn peaks() -> Vec<(&'static str, Steps)> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut all: Vec<(&'static str, Steps)> = Vec::new();
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: each is called only where the CPU has its instruction set.
            all.push(("f32", |steps| unsafe { x86::f32_avx512(steps) }));
        } else if is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            all.push(("f32", |steps| unsafe { x86::f32_fma(steps) }));
        } else {
            all.push(("f32", f32_plain));
        }
        if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            all.push(("bf16", |steps| unsafe { x86::bf16_avx512(steps) }));
        }
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            all.push(("int8", |steps| unsafe { x86::int8_avx512(steps) }));
        }
        all
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![("f32", f32_plain)]
}

fn f32_plain(steps: usize) -> usize {
    let (a, b) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = [a; 96];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = sum.mul_add(a, b);
        }
    }
    black_box(sums);
    96 * 2
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
        _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    };
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512(steps: usize) -> usize {
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut sums = [a; 16];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        16 * 16 * 2
    }

    #[target_feature(enable = "avx,fma")]
    pub(super) fn f32_fma(steps: usize) -> usize {
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut sums = [a; 12];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        12 * 8 * 2
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_avx512(steps: usize) -> usize {
        // SAFETY: both are 512 bits, and any bits are a vector of bfloat16.
        let a: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(black_box(0x3c00_3c00))) };
        let mut sums = [_mm512_set1_ps(black_box(0.001)); 16];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, a);
            }
        }
        black_box(sums);
        16 * 32 * 2
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_avx512(steps: usize) -> usize {
        let a = _mm512_set1_epi8(black_box(1));
        let mut sums = [_mm512_set1_epi32(black_box(1)); 16];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, a);
            }
        }
        black_box(sums);
        16 * 64 * 2
    }
}

fn peak(threads: usize, steps: Steps) -> Result<f64> {
    // About 10 ms at 4 GHz.
    const STEPS: usize = 2_000_000;
    let flops = steps(1) as f64;
    let seconds = quickest(threads, |_| {
        black_box(steps(STEPS));
    })?;
    Ok(flops * (STEPS * threads) as f64 / seconds / 1e9)
}

/// GB/s of reading 512 MB once.
fn read_peak(threads: usize) -> Result<f64> {
    let values = vec![1_u64; 64 << 20];
    let share = values.len() / threads;
    let seconds = quickest(threads, |i| {
        let sum = values[i * share..][..share].chunks_exact(64).fold([0_u64; 64], |mut sums, chunk| {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum ^= value;
            }
            sums
        });
        black_box(sum);
    })?;
    Ok((share * threads * 8) as f64 / seconds / 1e9)
}

/// Seconds of the quickest of some runs of `work` on all threads at once.
fn quickest(threads: usize, work: impl Fn(usize) + Sync) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        thread::scope(|scope| -> Result<()> {
            for i in 1..threads {
                let work = &work;
                let spawned = thread::Builder::new().spawn_scoped(scope, move || work(i));
                spawned.map_err(|e| no_thread(&e))?;
            }
            work(0);
            Ok(())
        })?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_that_a_machine_can_have() {
        let limits = limits(1).unwrap();
        let positive = |x: f64| x.is_finite() && x > 0.0;
        assert!(positive(limits.gigabytes_per_second) && positive(limits.f32_gflops()), "{limits:?}");
        assert!(limits.gflops.iter().all(|(_, peak)| positive(*peak)), "{limits:?}");
        let bound_by_memory = limits.milliseconds(1.0, limits.f32_gflops(), limits.gigabytes_per_second * 1e9);
        assert!((bound_by_memory - 1000.0).abs() < 1e-6);
    }
}
