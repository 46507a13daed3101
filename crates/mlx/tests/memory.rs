//! What MLX holds, alone in its process: its limits and counts are of all devices.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;
#[path = "common/layer.rs"]
mod layer;
#[path = "common/opened.rs"]
mod opened;

use layer::{HIDDEN, Layer};
use mlxt_backend::Mask;
use mlxt_backend::conformance::random::Random;
use mlxt_mlx::{MlxOptions, Room};

/// As many batches as `MLXT_BATCHES` says; 2000 by default.
#[test]
fn memory_stays_flat_over_thousands_of_random_batches() {
    let spare = 8 << 20;
    let room = Some(Room::Rounded);
    let Some(mlx) = opened::mlx(MlxOptions { room, spare_memory: Some(spare), ..MlxOptions::default() }) else {
        return;
    };
    let layer = Layer::new(&mlx).unwrap();
    let batches: usize = std::env::var("MLXT_BATCHES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let mut random = Random::new(5);
    let mut seen = Vec::new();
    for batch in 0..batches {
        let lengths: Vec<usize> = (0..=random.below(4)).map(|_| 1 + random.below(60)).collect();
        layer.forward(&mlx, &lengths, Mask::Full).unwrap();
        if (batch + 1) % (batches / 10) == 0 {
            seen.push(mlx.device().memory().unwrap());
        }
    }
    println!("{seen:?}");
    let (early, end) = (seen[1], seen[9]);
    // Weights, and the angles that kept programs hold: 128 of them, of at most 240 positions.
    let programs = 128 * 240 * HIDDEN * size_of::<f32>();
    assert!(end.active <= early.active + programs, "still growing: {seen:?}");
    assert!(end.cached <= spare, "{seen:?}");
}
