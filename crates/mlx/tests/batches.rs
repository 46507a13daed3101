//! A small encoder layer on mlx:cpu, in the batches that may come: every length, many threads.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;
#[path = "common/layer.rs"]
mod layer;
#[path = "common/opened.rs"]
mod opened;

use std::sync::OnceLock;
use std::thread;

use layer::Layer;
use mlxt_backend::{Mask, Reference};
use mlxt_mlx::{Mlx, MlxOptions, Room};

fn mlx(room: Room) -> Option<Mlx> {
    opened::mlx(MlxOptions { room: Some(room), ..MlxOptions::default() })
}

#[track_caller]
fn assert_near(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Three norms of values of size 1, each with the tolerance of the contract.
        assert!((got - want).abs() <= 3e-5, "{what}: value {i} is {got}, not {want}");
    }
}

/// Users of MLX meet values that are no numbers at some lengths: here every one is tried, alone and beside another.
#[test]
fn every_length_gives_the_references_values() {
    let want = Layer::new(&Reference).unwrap();
    for room in [Room::Exact, Room::Rounded] {
        let Some(mlx) = mlx(room) else { return };
        let layer = Layer::new(&mlx).unwrap();
        for length in 1..=512 {
            // The reference takes a while for long ones: the first 40, and then some.
            let compared = length <= 40 || length % 47 == 0;
            let mask = if length % 2 == 0 { Mask::Full } else { Mask::Window { radius: 2 } };
            for lengths in [&[length][..], &[3, length, 1]] {
                let what = format!("{lengths:?} {mask:?} {room:?}");
                let (rows, pooled) = layer.forward(&mlx, lengths, mask).unwrap();
                assert!(rows.iter().chain(&pooled).all(|v| v.is_finite()), "{what}");
                if compared {
                    let (all, means) = want.forward(&Reference, lengths, mask).unwrap();
                    assert_near(&rows, &all, &what);
                    assert_near(&pooled, &means, &what);
                }
            }
        }
    }
}

/// Of these no number of rows is one that is made room for: embeddings have spare rows, what comes after attention has none.
#[test]
fn sequences_of_one_length_give_the_references_values() {
    let Some(mlx) = mlx(Room::Rounded) else { return };
    let (layer, want) = (Layer::new(&mlx).unwrap(), Layer::new(&Reference).unwrap());
    for lengths in [&[13; 3][..], &[37; 3], &[7; 15], &[33; 31]] {
        for mask in [Mask::Full, Mask::Causal, Mask::Window { radius: 2 }] {
            let what = format!("{lengths:?} {mask:?}");
            let (rows, pooled) = layer.forward(&mlx, lengths, mask).unwrap();
            let (all, means) = want.forward(&Reference, lengths, mask).unwrap();
            assert_near(&rows, &all, &what);
            assert_near(&pooled, &means, &what);
        }
    }
}

#[test]
fn callers_on_several_threads_get_their_own_answers() {
    let Some(mlx) = mlx(Room::Rounded) else { return };
    let layer = Layer::new(&mlx).unwrap();
    let batches: Vec<Vec<usize>> = (0..8).map(|i| vec![5 + i, 20 - i, 1 + 2 * i]).collect();
    let want: Vec<_> = batches.iter().map(|b| layer.forward(&mlx, b, Mask::Full).unwrap()).collect();
    thread::scope(|s| {
        for (batch, want) in batches.iter().zip(&want) {
            let (mlx, layer) = (&mlx, &layer);
            s.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(&layer.forward(mlx, batch, Mask::Full).unwrap(), want);
                }
            });
        }
    });
}

#[test]
fn backends_and_their_weights_come_and_go_on_any_thread() {
    if mlx(Room::Exact).is_none() {
        return;
    }
    let first: OnceLock<Vec<f32>> = OnceLock::new();
    thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..5 {
                    let Some(mlx) = mlx(Room::Exact) else { return };
                    let layer = Layer::new(&mlx).unwrap();
                    let (rows, _) = layer.forward(&mlx, &[9, 4], Mask::Causal).unwrap();
                    assert_eq!(first.get_or_init(|| rows.clone()), &rows);
                }
            });
        }
    });
}
