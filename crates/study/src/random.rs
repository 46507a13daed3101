//! Seeded random numbers: the same on every machine, from a seed and a name, in any order and any part.
//!
//! `SplitMix64` over a counter. Not for secrets.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
    /// The second of a pair of normal numbers.
    spare: Option<f32>,
}

impl Random {
    /// The stream of `seed` that is called `name`.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, which spreads names well enough for SplitMix64 to do the rest.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Self { state: seed ^ hash, spare: None };
        random.bits();
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..limit`, or 0 if that is empty. Off from uniform by less than `limit / 2^64`.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Uniform in the open interval 0..1.
    pub fn uniform(&mut self) -> f32 {
        ((self.bits() >> 41) as f32 + 0.5) / (1 << 23) as f32
    }

    /// Standard normal (Box and Muller's pairs).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let bits = self.bits();
        // Two numbers of 32 bits, the first never 0: its logarithm is taken.
        let (u, v) = (((bits >> 32) as f32 + 0.5) / 4_294_967_296.0, (bits & 0xffff_ffff) as f32 / 4_294_967_296.0);
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (v * std::f32::consts::TAU).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_name_give_the_same_numbers() {
        let numbers = |seed, name| {
            let mut random = Random::new(seed, name);
            (0..8).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1, "x"), numbers(1, "x"));
        assert_ne!(numbers(1, "x"), numbers(2, "x"));
        assert_ne!(numbers(1, "x"), numbers(1, "y"));
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        let mut random = Random::new(3, "normal");
        let values: Vec<f64> = (0..1 << 20).map(|_| f64::from(random.normal())).collect();
        let moment = |power| values.iter().map(|x: &f64| x.powi(power)).sum::<f64>() / values.len() as f64;
        // Four standard errors of each moment over 2^20 values.
        for (power, expected, allowed) in [(1, 0.0, 0.004), (2, 1.0, 0.006), (3, 0.0, 0.016), (4, 3.0, 0.04)] {
            assert!((moment(power) - expected).abs() < allowed, "moment {power}: {}", moment(power));
        }
        assert!(values.iter().all(|x| x.is_finite()) && values.iter().any(|x| x.abs() > 4.5));
    }

    #[test]
    fn uniform_numbers_stay_inside_and_shuffles_keep_everything() {
        let mut random = Random::new(4, "uniform");
        assert!((0..100_000).map(|_| random.uniform()).all(|x| x > 0.0 && x < 1.0));
        assert!((0..10_000).all(|i| random.below(i % 7 + 1) <= i % 7));
        let mut items: Vec<usize> = (0..50).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
