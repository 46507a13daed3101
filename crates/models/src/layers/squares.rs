//! What the inputs of a layer's products are like on average, guessed from the weights around them: their squares, up to a factor.
//! Weights of 8 bits are rounded by it.
//!
//! Tried on sentence encoders of BERT's order, and used there alone: a guess that is wrong does harm (docs/performance/cpu.md).

use mlxt_backend::{MatrixSource, NormSource};

/// Of what a layer's queries, keys and values are made of: an input is small where values are made much of it.
pub(super) fn of_attention(qkv: &MatrixSource) -> Option<Vec<f32>> {
    let outputs: usize = qkv.parts.iter().map(|part| part.weight.shape()[0]).sum();
    guess(column_squares(qkv, outputs / 3 * 2)?.into_iter().map(|square| 1.0 / square))
}

/// Of what a norm gives: its rows have a mean of 0 and a deviation of 1 before its gain and shift.
pub(super) fn of_norm(norm: &NormSource) -> Option<Vec<f32>> {
    let gain = norm.gain.to_f32();
    let shift = norm.shift.as_ref().map_or_else(|| vec![0.0; gain.len()], mlxt_backend::HostTensor::to_f32);
    guess(gain.iter().zip(&shift).map(|(gain, shift)| f64::from(gain * gain + shift * shift)))
}

/// Of what the last product of a feed-forward network is given: much is made of what is large.
pub(super) fn of_activation(down: &MatrixSource) -> Option<Vec<f32>> {
    guess(column_squares(down, 0)?.into_iter().map(f64::sqrt))
}

/// The sum of squares of each column, over the outputs from this one on; none of a matrix without parts.
fn column_squares(source: &MatrixSource, first: usize) -> Option<Vec<f64>> {
    let inputs = source.parts.first()?.weight.shape()[1];
    let mut skipped = first;
    let (mut squares, mut row) = (vec![0.0f32; inputs], vec![0.0; inputs]);
    for part in &source.parts {
        let rows = part.weight.shape()[0];
        let skip = skipped.min(rows);
        skipped -= skip;
        if skip == rows {
            continue;
        }
        let weight = part.weight.full();
        for output in skip..rows {
            weight.decode(output * inputs, &mut row);
            for (square, &w) in squares.iter_mut().zip(&row) {
                *square += w * w;
            }
        }
    }
    Some(squares.into_iter().map(f64::from).collect())
}

/// As they are asked for; none if one is none.
fn guess(squares: impl Iterator<Item = f64>) -> Option<Vec<f32>> {
    let fits = |&square: &f32| square.is_finite() && square > 0.0;
    squares.map(|square| Some(square as f32).filter(fits)).collect()
}

#[cfg(test)]
mod tests {
    use mlxt_backend::{HostTensor, LinearPart, NormKind, Precision};

    use super::*;

    fn part(shape: [usize; 2], values: &[f32]) -> LinearPart {
        LinearPart { weight: HostTensor::from_f32(&shape, values).unwrap().into(), bias: None }
    }

    #[test]
    fn values_are_the_last_third_however_they_are_stacked() {
        let each = [[1.0, 2.0], [3.0, 4.0], [0.5, 0.25]].map(|row| part([1, 2], &row));
        let stacked = [part([3, 2], &[1.0, 2.0, 3.0, 4.0, 0.5, 0.25])];
        for parts in [each.to_vec(), stacked.to_vec()] {
            assert_eq!(of_attention(&MatrixSource::new(parts, Precision::Int8)), Some(vec![4.0, 16.0]));
        }
    }

    #[test]
    fn a_guess_that_cannot_be_is_none() {
        let down = |values: &[f32]| of_activation(&MatrixSource::new(vec![part([2, 2], values)], Precision::Int8));
        assert_eq!(down(&[3.0, 1.0, 4.0, 0.0]), Some(vec![5.0, 1.0]));
        for wrong in [[1.0, 0.0, 1.0, 0.0], [f32::NAN, 1.0, 1.0, 1.0], [f32::INFINITY, 1.0, 1.0, 1.0]] {
            assert_eq!(down(&wrong), None);
        }
    }

    #[test]
    fn a_norm_gives_what_its_gain_and_shift_make() {
        let tensor = |values: &[f32]| HostTensor::from_f32(&[values.len()], values).unwrap();
        let (gain, shift) = (tensor(&[1.0, 2.0]), Some(tensor(&[2.0, 0.0])));
        let norm = NormSource { kind: NormKind::LayerNorm, gain, shift, eps: 1e-5 };
        assert_eq!(of_norm(&norm), Some(vec![5.0, 4.0]));
    }
}
