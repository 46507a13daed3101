//! Numbers to codes, as `mlx.core.quantize` does it: the same codes, scales and biases, bit for bit.
//!
//! In each group the end that is further from zero becomes exact and code 0, and a whole number of steps, found by rounding,
//! leads from there to zero: so zero is exact too, and a step goes up or down. Products use the scale as stored, while
//! codes are counted in steps of the scale before it is rounded to the type it is stored in.

use super::{Quantised, Scales, Scheme};
use crate::{Error, HostTensor, Result, check};

/// The smallest step, MLX's: for groups of one value.
const LEAST_STEP: f32 = 1e-7;

/// How a group's numbers become codes.
struct Steps {
    scale: f32,
    bias: f32,
}

impl Quantised {
    /// Rounds weights, `[outputs, inputs]`, to [`Scheme::Affine`]. Scales and biases are kept in the type of the weights.
    ///
    /// # Errors
    /// Those of [`Quantised::new`]; [`Error::Setting`] for a weight that is not finite; a tensor without two dimensions.
    pub fn affine(weight: &HostTensor, bits: usize, group: usize) -> Result<Self> {
        let (scheme, op) = (Scheme::Affine { bits, group }, "quantise");
        scheme.check()?;
        let (outputs, inputs) = check::two_dimensions(op, "dimensions of a weight", weight.shape())?;
        if !inputs.is_multiple_of(group) {
            let what = format!("{}: {inputs} inputs are no whole number of groups of {group}", weight.name());
            return Err(Error::Setting { op, what });
        }
        let most = ((1_u32 << bits) - 1) as f32;
        let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        let mut values = vec![0.0; group];
        let mut packed = vec![0; group / 8 * bits];
        for first in (0..outputs * inputs).step_by(group) {
            weight.decode(first, &mut values);
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let what = format!("{}: the weight at element {} is {}", weight.name(), first + at, values[at]);
                return Err(Error::Setting { op, what });
            }
            let Steps { scale, bias } = Steps::of(&values, bits, most);
            packed.fill(0);
            for (i, value) in values.iter().enumerate() {
                let code = ((value - bias) / scale).round_ties_even().clamp(0.0, most) as u16;
                let (byte, shifted) = (i * bits / 8, code << (i * bits % 8));
                packed[byte] |= shifted as u8;
                if let Some(next) = packed.get_mut(byte + 1) {
                    *next |= (shifted >> 8) as u8;
                }
            }
            codes.extend_from_slice(&packed);
            scales.push(scale);
            biases.push(bias);
        }
        let groups = vec![outputs, inputs / group];
        let kept = |values: &[f32]| HostTensor::f32(groups.clone(), values).cast(weight.dtype());
        let scales = Scales::Affine { scales: kept(&scales), biases: kept(&biases) };
        Ok(Self::new(scheme, [outputs, inputs], codes.into(), scales)?.named(weight.name()))
    }
}

impl Steps {
    fn of(values: &[f32], bits: usize, most: f32) -> Self {
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let smallest = values.iter().copied().fold(f32::INFINITY, f32::min);
        if bits == 1 {
            return Self { scale: (largest - smallest).max(LEAST_STEP), bias: smallest };
        }
        let step = ((largest - smallest) / most).max(LEAST_STEP);
        let (end, step) = if smallest.abs() > largest.abs() { (smallest, step) } else { (largest, -step) };
        let steps = (end / step).round_ties_even();
        if steps == 0.0 { Self { scale: step, bias: 0.0 } } else { Self { scale: end / steps, bias: end } }
    }
}
