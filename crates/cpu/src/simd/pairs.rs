//! Pairs of bfloat16 numbers in the lanes of f32 vectors: which CPUs multiply them fast, and plain code that shows what
//! the operations on them mean.

use half::bf16;

use super::{Kernel, MAX_LANES, Simd, Token};

/// An instruction set that multiplies pairs faster than f32.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PairToken {
    #[cfg(target_arch = "x86_64")]
    Avx512(super::avx512::Avx512<true>),
}

impl PairToken {
    /// The one that goes with an instruction set for f32, if the CPU has it.
    pub(crate) fn of(token: Token) -> Option<Self> {
        match token {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => super::avx512::Avx512::<true>::detect_fast().map(Self::Avx512),
            _ => None,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] // there are none
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) => s.vectorize(kernel),
        }
    }
}

/// [`Simd::add_pairs`], lane by lane.
#[inline(always)]
pub(super) fn add<S: Simd>(s: S, a: S::V, b: S::V, sums: S::V) -> S::V {
    let [a, b, mut sums] = [a, b, sums].map(|v| lanes(s, v));
    let halves = |pair: f32| [pair.to_bits() << 16, pair.to_bits() & 0xffff_0000].map(f32::from_bits);
    for ((sum, a), b) in sums.iter_mut().zip(a.map(halves)).zip(b.map(halves)) {
        *sum += a[0] * b[0] + a[1] * b[1];
    }
    s.get(&sums[..S::LANES])
}

/// [`Simd::pair`], lane by lane.
#[inline(always)]
pub(super) fn pair<S: Simd>(s: S, first: S::V, second: S::V) -> S::V {
    let [mut pairs, second] = [first, second].map(|v| lanes(s, v));
    for (first, second) in pairs.iter_mut().zip(second) {
        let [low, high] = [*first, second].map(|v| u32::from(bf16::from_f32(v).to_bits()));
        *first = f32::from_bits(low | high << 16);
    }
    s.get(&pairs[..S::LANES])
}

/// [`Simd::store_bf16`], lane by lane.
///
/// # Safety
/// `2 * LANES` bytes can be written.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(s: S, p: *mut u8, v: S::V) {
    for (i, value) in lanes(s, v)[..S::LANES].iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { p.add(2 * i).cast::<[u8; 2]>().write(bf16::from_f32(*value).to_le_bytes()) };
    }
}

#[inline(always)]
fn lanes<S: Simd>(s: S, v: S::V) -> [f32; MAX_LANES] {
    let mut values = [0.0; MAX_LANES];
    s.put(&mut values[..S::LANES], v);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::tests::{assert_near, noise};

    /// Two vectors of pairs, multiplied and added to sums.
    struct Check<'a>(&'a [f32]);

    impl Kernel for Check<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let lanes = S::LANES;
            let (values, sums) = self.0.split_at(4 * lanes);
            let mut pairs = [0.0_f32; 2 * MAX_LANES];
            for (i, values) in values.chunks_exact(lanes).enumerate() {
                // SAFETY: `pairs` has room for four vectors of halves.
                unsafe { s.store_bf16(pairs.as_mut_ptr().cast::<u8>().add(2 * lanes * i), s.get(values)) };
            }
            let (a, b) = (s.get(&pairs[..lanes]), s.get(&pairs[lanes..2 * lanes]));
            let mut found = vec![0.0; lanes];
            s.put(&mut found, s.add_pairs(a, b, s.get(&sums[..lanes])));
            // The first vector's lanes paired with the second's are multiplied by ones: their sums.
            let (ones, zeros) = (s.splat(f32::from_bits(0x3f80_3f80)), s.splat(0.0));
            let pair = s.pair(s.get(&values[..lanes]), s.get(&values[lanes..2 * lanes]));
            let mut added = vec![0.0; lanes];
            s.put(&mut added, s.add_pairs(pair, ones, zeros));
            let rounded: Vec<f32> = values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
            let (a, b) = rounded.split_at(2 * lanes);
            let products = a.chunks_exact(2).zip(b.chunks_exact(2)).map(|(a, b)| a[0] * b[0] + a[1] * b[1]);
            let want: Vec<f32> = products.zip(sums).map(|(product, sum)| sum + product).collect();
            assert_near(&found, &want, 3e-7);
            let want: Vec<f32> = rounded[..lanes].iter().zip(&rounded[lanes..2 * lanes]).map(|(a, b)| a + b).collect();
            assert_near(&added, &want, 3e-7);
        }
    }

    #[test]
    fn pairs_are_rounded_to_even_and_their_products_added() {
        let mut values = noise(5 * MAX_LANES, 1.0);
        // Between two numbers of bfloat16: to the even one, below and above.
        values[..2].copy_from_slice(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        for token in Isa::available().filter_map(Isa::token) {
            token.run(Check(&values));
            if let Some(fast) = PairToken::of(token) {
                fast.run(Check(&values));
            }
        }
    }
}
