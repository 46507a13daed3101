//! Weights in the order the product reads them.
//!
//! Outputs are cut into panels of two vectors. A panel holds, for each input, the weights of its outputs side by side:
//! `[panels][inputs][2 * LANES]`, zeros where the last panel has no outputs. One pass over a panel is one stream.

use mlxt_backend::{DType, LinearPart, Result, Shaped};

use super::tile::transpose;
use crate::arena::Block;
use crate::kernels::embed::Decode;
use crate::simd::{Kernel, Simd, Token};
use crate::threads::{Pool, Shareable};

/// Stacked linear layers, packed for one instruction set.
#[derive(Debug)]
pub struct Matrix {
    pub(super) panels: Block,
    /// Zeros where a layer has none; whole panels.
    pub(super) bias: Block,
    outputs: usize,
    inputs: usize,
    /// Outputs of a panel.
    width: usize,
}

impl Shaped for Matrix {
    fn rows(&self) -> usize {
        self.outputs
    }
    fn cols(&self) -> usize {
        self.inputs
    }
}

impl Matrix {
    /// Packs parts that have been checked.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(
        (token, pool): (Token, &Pool),
        parts: &[LinearPart],
        (outputs, inputs): (usize, usize),
    ) -> Result<Self> {
        let width = token.run(Width);
        let count = outputs.div_ceil(width);
        let mut panels = Block::new(count.saturating_mul(width).saturating_mul(inputs))?;
        let mut bias = Block::new(count * width)?;
        let mut first = 0;
        for part in parts {
            let outputs = part.weight.shape()[0];
            if let Some(values) = &part.bias {
                values.decode(0, &mut bias[first..first + outputs]);
            }
            first += outputs;
        }
        let start = Shareable(panels.as_mut_ptr());
        pool.run(count, |_, claims| {
            let mut rows = vec![0.0; width * STRIP];
            for panel in claims {
                // SAFETY: each panel is claimed once, panels do not overlap, and there are `count`.
                let out =
                    unsafe { std::slice::from_raw_parts_mut(start.get().add(panel * width * inputs), width * inputs) };
                token.run(PackPanel { parts, inputs, first: panel * width, rows: &mut rows, out });
            }
        });
        Ok(Self { panels, bias, outputs, inputs, width })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }
}

/// Outputs of a panel: two vectors.
struct Width;

impl Kernel for Width {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        2 * S::LANES
    }
}

/// Inputs decoded at a time: with all outputs of a panel 32 KiB at most, so that they are still in the nearest cache
/// when they are transposed.
const STRIP: usize = 256;

struct PackPanel<'a> {
    parts: &'a [LinearPart],
    inputs: usize,
    /// The first output.
    first: usize,
    /// Room for `[width][STRIP]`.
    rows: &'a mut [f32],
    /// `[inputs][width]`
    out: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        for strip in (0..self.inputs).step_by(STRIP) {
            let cols = STRIP.min(self.inputs - strip);
            for (o, row) in self.rows.chunks_exact_mut(STRIP).enumerate() {
                let row = &mut row[..cols];
                match output(self.parts, self.first + o) {
                    Some((dtype, bytes)) => {
                        let size = dtype.size();
                        let bytes = &bytes[strip * size..(strip + cols) * size];
                        Decode { dtype, bytes, add: false, out: row }.run(s);
                    }
                    None => row.fill(0.0),
                }
            }
            let out = &mut self.out[strip * width..(strip + cols) * width];
            // SAFETY: `rows` holds `width` rows of `STRIP` values. `width` is a whole number of vectors, so nothing is
            // written behind the `cols` rows of `out`.
            unsafe { transpose(s, self.rows.as_ptr(), STRIP, (width, cols), out.as_mut_ptr(), width) };
        }
    }
}

/// The weights of one output over all parts, if there is such an output.
fn output(parts: &[LinearPart], mut index: usize) -> Option<(DType, &[u8])> {
    for part in parts {
        let &[outputs, inputs] = part.weight.shape() else { return None };
        if index < outputs {
            let bytes = inputs * part.weight.dtype().size();
            return Some((part.weight.dtype(), &part.weight.bytes()[index * bytes..][..bytes]));
        }
        index -= outputs;
    }
    None
}
