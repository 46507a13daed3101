//! Elements of 16 bits made f32, and f32 rounded to them, many at a time: what weights go through when they are loaded, and results
//! on their way to the host. The only unsafe code of the crate is here, to use instructions that not every x86 has.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::DType;

/// Numbers of 16 bits at a time, where they are not converted as they lie.
const BLOCK: usize = 256;

/// Little-endian elements as f32.
///
/// # Panics
/// If `bytes` are not those of as many elements as `out` has.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.size(), "bytes of {} elements of {dtype}", out.len());
    match dtype {
        DType::F32 => {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        DType::F16 => {
            let done = eights::decode(bytes, out);
            decode_f16(&bytes[2 * done..], &mut out[done..]);
        }
        DType::Bf16 => {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
    }
}

/// The little-endian bytes of values, rounded to nearest, ties to even.
#[must_use]
pub fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.size()];
    match dtype {
        DType::F32 => {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        DType::F16 => {
            let done = eights::encode(values, &mut bytes);
            encode_f16(&values[done..], &mut bytes[2 * done..]);
        }
        DType::Bf16 => {
            for (bytes, &value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(value).to_le_bytes();
            }
        }
    }
    bytes
}

/// On every machine, by what `half` knows of it.
fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; BLOCK];
    for (bytes, out) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

/// As [`decode_f16`].
fn encode_f16(values: &[f32], bytes: &mut [u8]) {
    let mut halves = [f16::ZERO; BLOCK];
    for (values, bytes) in values.chunks(BLOCK).zip(bytes.chunks_mut(2 * BLOCK)) {
        halves[..values.len()].convert_from_f32_slice(values);
        for (bytes, half) in bytes.as_chunks_mut().0.iter_mut().zip(halves) {
            *bytes = half.to_le_bytes();
        }
    }
}

/// The least magnitude that is infinite once it is rounded to a type: half a step beyond the largest that is not.
pub(crate) fn infinite_from(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => f32::INFINITY,
        DType::F16 => 65520.0,
        DType::Bf16 => f32::from_bits(0x7f7f_8000),
    }
}

/// f16 by eights, as far as these go, which takes `half` twice as long; gives how many were converted: none where the machine has no
/// instruction for it.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod eights {
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };

    fn have() -> bool {
        is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c")
    }

    pub(super) fn decode(bytes: &[u8], out: &mut [f32]) -> usize {
        #[target_feature(enable = "avx,f16c")]
        fn run(from: &[[u8; 16]], to: &mut [[f32; 8]]) {
            for (from, to) in from.iter().zip(to) {
                // SAFETY: so much is there to be read and to be written; neither has to be aligned.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) }
            }
        }
        if !have() {
            return 0;
        }
        let to = out.as_chunks_mut().0;
        // SAFETY: the machine has these instructions.
        unsafe { run(bytes.as_chunks().0, to) };
        8 * to.len()
    }

    pub(super) fn encode(values: &[f32], bytes: &mut [u8]) -> usize {
        #[target_feature(enable = "avx,f16c")]
        fn run(from: &[[f32; 8]], to: &mut [[u8; 16]]) {
            for (from, to) in from.iter().zip(to) {
                // SAFETY: as above.
                unsafe {
                    let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
                    _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
                }
            }
        }
        if !have() {
            return 0;
        }
        let from = values.as_chunks().0;
        // SAFETY: the machine has these instructions.
        unsafe { run(from, bytes.as_chunks_mut().0) };
        8 * from.len()
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod eights {
    pub(super) fn decode(_: &[u8], _: &mut [f32]) -> usize {
        0
    }

    pub(super) fn encode(_: &[f32], _: &mut [u8]) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are the same or both none.
    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    #[test]
    fn every_number_of_16_bits_is_itself() {
        // Six more than whole eights, and from an odd address.
        let all = (0..=u16::MAX).chain(0..6);
        let bytes: Vec<u8> = [0].into_iter().chain(all.clone().flat_map(u16::to_le_bytes)).collect();
        let mut found = vec![0.0; 65542];
        for (dtype, value) in [
            (DType::F16, (|bits| f16::from_bits(bits).to_f32()) as fn(u16) -> f32),
            (DType::Bf16, |bits| bf16::from_bits(bits).to_f32()),
        ] {
            decode(dtype, &bytes[1..], &mut found);
            for (bits, &found) in all.clone().zip(&found) {
                assert!(same(found, value(bits)), "{dtype} {bits:#x}: {found}");
            }
            let back = encode(&found, dtype);
            for (bits, back) in all.clone().zip(back.as_chunks().0) {
                assert!(same(value(bits), value(u16::from_le_bytes(*back))), "{dtype} {bits:#x} back");
            }
        }
    }

    #[test]
    fn values_are_rounded_to_nearest_even() {
        // All exponents, with bits around those that are cut off.
        let values: Vec<f32> = (0..=u16::MAX)
            .flat_map(|high| [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001].map(|low| (high, low)))
            .map(|(high, low)| f32::from_bits(u32::from(high) << 16 | low))
            .chain([0.5, 1.5, -2.5])
            .collect();
        let (halves, brains) = (encode(&values, DType::F16), encode(&values, DType::Bf16));
        for (i, &value) in values.iter().enumerate() {
            let (half, brain) =
                (f16::from_le_bytes(halves.as_chunks().0[i]), bf16::from_le_bytes(brains.as_chunks().0[i]));
            assert!(same(half.to_f32(), f16::from_f32(value).to_f32()), "{value} as f16: {half}");
            assert!(same(brain.to_f32(), bf16::from_f32(value).to_f32()), "{value} as bf16: {brain}");
        }
    }

    #[test]
    fn both_ways_of_f16_are_the_same() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let (mut found, mut plain) = (vec![0.0; 65536], vec![0.0; 65536]);
        decode(DType::F16, &bytes, &mut found);
        decode_f16(&bytes, &mut plain);
        assert!(found.iter().zip(&plain).all(|(&a, &b)| same(a, b)));
        let mut back = vec![0; bytes.len()];
        encode_f16(&plain, &mut back);
        assert_eq!(back, encode(&found, DType::F16));
    }

    #[test]
    fn few_values_and_none() {
        for count in 0..20 {
            let values: Vec<f32> = (0..count).map(|i| i as f32 - 7.5).collect();
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let mut found = vec![f32::NAN; count];
                decode(dtype, &encode(&values, dtype), &mut found);
                assert_eq!(found, values, "{count} of {dtype}");
            }
        }
    }

    #[test]
    fn what_is_infinite_begins_half_a_step_beyond_the_largest() {
        for dtype in [DType::F16, DType::Bf16] {
            let least = infinite_from(dtype);
            let mut found = [0.0; 3];
            decode(dtype, &encode(&[least, -least, least.next_down()], dtype), &mut found);
            assert!(found[0] == f32::INFINITY && found[1] == f32::NEG_INFINITY && found[2].is_finite(), "{found:?}");
        }
        assert_eq!(infinite_from(DType::F32), f32::INFINITY);
    }
}
