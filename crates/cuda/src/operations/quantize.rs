//! Weights of 8 and 4 bits: rounded when they are uploaded, widened again for the product.

use std::sync::Arc;

use mlxt_backend::Result;
use mlxt_backend::operations::Operation;

use super::work::{THREADS, Work};
use crate::ffi::context::Context;
use crate::ffi::memory::Memory;
use crate::ffi::module::Shape;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct WidenOperands {
    weights: u64,
    scales: u64,
    out: u64,
    inputs: u32,
    outputs: u32,
    group: u32,
    bits: u32,
}

/// Weights as small integers with scales.
#[derive(Debug)]
pub(super) struct Quantized {
    pub(super) bits: u32,
    weights: Memory,
    scales: Memory,
    inputs: usize,
    outputs: usize,
    /// Inputs that share a scale.
    group: usize,
}

/// The bits of the weights an operation keeps as integers.
pub(super) fn bits(operation: &Operation) -> Option<u32> {
    match operation {
        Operation::LinearInt8 => Some(8),
        Operation::LinearQ4 => Some(4),
        _ => None,
    }
}

impl Quantized {
    /// Rounds `w [inputs, outputs]`, for an operation that keeps it so.
    pub(super) fn new(
        context: &Arc<Context>,
        operation: &Operation,
        w: &[f32],
        (inputs, outputs): (usize, usize),
    ) -> Result<Option<Self>> {
        let Some(bits) = bits(operation) else { return Ok(None) };
        let group = if bits == 8 { inputs } else { 64 };
        let (weights, scales) = round(w, (inputs, outputs), bits, group);
        let (weights, scales) = (Memory::with(context, &weights)?, Memory::with(context, &scales)?);
        Ok(Some(Self { bits, weights, scales, inputs, outputs, group }))
    }

    /// The weights as f32, `[inputs, outputs]`.
    pub(super) fn widen(&self, work: &mut Work<'_>) -> Result<Memory> {
        let out = work.memory(self.inputs * self.outputs)?;
        let operands = WidenOperands {
            weights: self.weights.address(),
            scales: self.scales.address(),
            out: out.address(),
            inputs: self.inputs as u32,
            outputs: self.outputs as u32,
            group: self.group as u32,
            bits: self.bits,
        };
        let grid = [self.outputs.div_ceil(THREADS), self.inputs.min(1 << 10), 1];
        work.start_shaped("widen_weights", Shape { grid, threads: THREADS, shared: 0 }, &operands)?;
        Ok(out)
    }
}

/// Integers `[inputs, outputs]` (of 4 bits two inputs in a byte, the first in its lower half) and scales
/// `[groups, outputs]`. The value of the largest magnitude becomes 127 in size, or -8, the end of the range of 4 bits that
/// has one number more.
fn round(w: &[f32], (inputs, outputs): (usize, usize), bits: u32, group: usize) -> (Vec<u8>, Vec<f32>) {
    let half = bits == 4;
    let mut weights = vec![0; if half { inputs.div_ceil(2) } else { inputs } * outputs];
    let mut scales = Vec::with_capacity(inputs.div_ceil(group) * outputs);
    for first in (0..inputs).step_by(group) {
        let rows = first..inputs.min(first + group);
        for output in 0..outputs {
            let value = |row: usize| w[row * outputs + output];
            let end = rows.clone().map(value).fold(0.0_f32, |end, v| if v.abs() > end.abs() { v } else { end });
            let scale = if half { end / -8.0 } else { end.abs() / 127.0 };
            scales.push(scale);
            for row in rows.clone() {
                let level = if scale == 0.0 { 0.0 } else { (value(row) / scale).round_ties_even() };
                if half {
                    let number = (level.clamp(-8.0, 7.0) as i8).wrapping_add(8).cast_unsigned();
                    weights[row / 2 * outputs + output] |= number << (4 * (row % 2));
                } else {
                    weights[row * outputs + output] = (level.clamp(-127.0, 127.0) as i8).cast_unsigned();
                }
            }
        }
    }
    (weights, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_have_a_scale_for_each_output() {
        let (weights, scales) = round(&[1.27, 0.0, -0.63, 0.0, 0.014, 0.0], (3, 2), 8, 3);
        assert_eq!(weights.iter().map(|&w| w.cast_signed()).collect::<Vec<_>>(), [127, 0, -63, 0, 1, 0]);
        assert!((scales[0] - 0.01).abs() < 1e-9 && scales[1] == 0.0);
    }

    #[test]
    fn four_bits_lie_in_pairs_and_the_largest_is_exact() {
        let (weights, scales) = round(&[0.8, -0.3, 0.1], (3, 1), 4, 64);
        assert_eq!(scales, [-0.1]);
        let levels = [weights[0] & 15, weights[0] >> 4, weights[1] & 15].map(|level| f32::from(level) - 8.0);
        assert_eq!(levels, [-8.0, 3.0, -1.0]);
        let (weights, scales) = round(&[0.5; 65], (65, 1), 4, 64);
        assert_eq!((weights.len(), scales.len()), (33, 2));
    }
}
