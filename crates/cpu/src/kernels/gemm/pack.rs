//! Weights in the order the product reads them.
//!
//! Outputs are cut into panels of two vectors. A panel holds, for each input, the weights of its outputs side by side:
//! `[panels][inputs][2 * LANES]`, zeros where the last panel has no outputs; with weights in pairs half as many inputs. One
//! pass over a panel is one stream.

use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};
use mlxt_backend::{DType, HostTensor, LinearPart, Result, Shaped};

use super::tile::transpose;
use super::weight::{Kept, Pair, Weight};
use crate::arena::Block;
use crate::kernels::embed::Decode;
use crate::kernels::next::{Next, Place};
use crate::simd::{Kernel, Simd, Token};
use crate::threads::{Pool, Shareable};

/// Stacked linear layers, packed for one instruction set.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// Weights as `kept` says, in the bytes of as many f32 as they take.
    pub(super) panels: Block,
    kept: Kept,
    /// Zeros where a layer has none; whole panels.
    pub(super) bias: Block,
    outputs: usize,
    inputs: usize,
    /// Outputs of a panel.
    width: usize,
    next: Next,
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
    /// Packs parts that have been checked; and whether all their weights are finite as they are kept.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(
        (token, pool): (Token, &Pool),
        parts: &[LinearPart<HostTensor>],
        kept: Kept,
        (outputs, inputs): (usize, usize),
    ) -> Result<(Self, bool)> {
        let width = token.run(Width);
        let count = outputs.div_ceil(width);
        let weights = count.saturating_mul(width).saturating_mul(inputs.div_ceil(kept.inputs()));
        // A panel's width is a multiple of four, so this is exact.
        let mut panels = Block::new(weights / size_of::<f32>() * kept.size())?;
        let bias = bias(parts, count * width)?;
        let fits = match kept {
            Kept::F32 => pack::<f32>((token, pool), parts, (count, width, inputs), &mut panels),
            Kept::Bf16 => pack::<bf16>((token, pool), parts, (count, width, inputs), &mut panels),
            Kept::F16 => pack::<f16>((token, pool), parts, (count, width, inputs), &mut panels),
            Kept::Pairs(_) => pack::<Pair>((token, pool), parts, (count, width, inputs), &mut panels),
        };
        Ok((Self { panels, kept, bias, outputs, inputs, width, next: Next::default() }, fits))
    }

    /// What the panels hold.
    pub(super) fn kept(&self) -> Kept {
        self.kept
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// Where the weights lie.
    pub(crate) fn place(&self) -> Place {
        let count = self.count();
        Place { start: self.panels.as_ptr().addr(), panel: size_of_val(&*self.panels) / count, count }
    }

    /// Which weights came next.
    pub(crate) fn next(&self) -> &Next {
        &self.next
    }
}

/// The biases of all parts, zeros where a part has none, and behind them up to `len`.
pub(crate) fn bias(parts: &[LinearPart<HostTensor>], len: usize) -> Result<Block> {
    let mut bias = Block::new(len)?;
    let mut first = 0;
    for part in parts {
        let outputs = part.weight.shape()[0];
        if let Some(values) = &part.bias {
            values.decode(0, &mut bias[first..first + outputs]);
        }
        first += outputs;
    }
    Ok(bias)
}

/// Fills `count` panels with weights kept as `W`; whether it can hold them all.
fn pack<W: Weight>(
    (token, pool): (Token, &Pool),
    parts: &[LinearPart<HostTensor>],
    (count, width, inputs): (usize, usize, usize),
    panels: &mut Block,
) -> bool {
    let start = Shareable(panels.as_mut_ptr());
    let fits = AtomicBool::new(true);
    pool.run(count, |_, claims| {
        let mut rows = vec![0.0; width * STRIP];
        let mut columns = vec![0.0; width * STRIP];
        for panel in claims {
            // SAFETY: each panel is claimed once, panels do not overlap, and there are `count` of them in the block,
            // whose zeros are a `W` too.
            let out = unsafe {
                let len = width * inputs.div_ceil(W::INPUTS);
                std::slice::from_raw_parts_mut(start.get().cast::<W>().add(panel * len), len)
            };
            let first = panel * width;
            if !token.run(PackPanel { parts, inputs, first, rows: &mut rows, columns: &mut columns, out }) {
                fits.store(false, Ordering::Relaxed);
            }
        }
    });
    fits.into_inner()
}

/// Outputs of a panel: two vectors.
pub(crate) struct Width;

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

struct PackPanel<'a, W> {
    parts: &'a [LinearPart<HostTensor>],
    inputs: usize,
    /// The first output.
    first: usize,
    /// Room for `[width][STRIP]`.
    rows: &'a mut [f32],
    /// Room for `[STRIP][width]`.
    columns: &'a mut [f32],
    /// `[inputs / INPUTS][width]`
    out: &'a mut [W],
}

impl<W: Weight> Kernel for PackPanel<'_, W> {
    /// Whether all weights are finite as `W`, if they are checked.
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let width = 2 * S::LANES;
        let mut fits = true;
        for strip in (0..self.inputs).step_by(STRIP) {
            let cols = STRIP.min(self.inputs - strip);
            for (o, row) in self.rows.chunks_exact_mut(STRIP).enumerate() {
                decode_output(s, self.parts, self.first + o, strip, &mut row[..cols]);
            }
            let columns = &mut self.columns[..cols * width];
            // SAFETY: `rows` holds `width` rows of `STRIP` values. `width` is a whole number of vectors, so nothing is
            // written behind the `cols` rows of `columns`.
            unsafe { transpose(s, self.rows.as_ptr(), STRIP, (width, cols), columns.as_mut_ptr(), width) };
            let out = &mut self.out[strip / W::INPUTS * width..];
            fits &= W::round(columns, width, &mut out[..cols.div_ceil(W::INPUTS) * width]);
        }
        fits
    }
}

/// The weights of one output over all parts, as f32, from input `first` on; zeros if there is no such output.
#[inline(always)]
pub(crate) fn decode_output<S: Simd>(
    s: S,
    parts: &[LinearPart<HostTensor>],
    index: usize,
    first: usize,
    out: &mut [f32],
) {
    match output(parts, index) {
        Some((dtype, bytes)) => {
            let size = dtype.size();
            let bytes = &bytes[first * size..(first + out.len()) * size];
            Decode { dtype, bytes, add: false, out }.run(s);
        }
        None => out.fill(0.0),
    }
}

/// The weights of one output over all parts, if there is such an output.
fn output(parts: &[LinearPart<HostTensor>], mut index: usize) -> Option<(DType, &[u8])> {
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
