//! Small integers in the order the product reads them.
//!
//! Outputs are cut into panels of two vectors. A panel holds, group by group of inputs, for each four inputs the weights of
//! its outputs, output by output; and for each group its outputs' scales. What is behind the last output or input is zero.

use std::marker::PhantomData;
use std::sync::Arc;

use mlxt_backend::{HostTensor, LinearPart, Result, Shaped};

use super::feedback::Feedback;
use super::spread::spread;
use super::{BLOCK, Bits, Eight, Four, MOST_GROUPS, Weights};
use crate::arena::{Arena, Block, Buffer};
use crate::kernels::gemm::weight::Weight;
use crate::kernels::gemm::{bias, decode_output};
use crate::kernels::next::{Next, Place};
use crate::simd::dot::{Dot, DotKernel, DotToken};
use crate::simd::{Simd, Token};
use crate::threads::{Pool, Shareable};

/// Stacked linear layers, packed for one instruction set.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// Weights, in the bytes of as many f32.
    panels: Block,
    /// `[panels][groups][width]`, in the bytes of as many f32.
    scales: Block,
    /// Zeros where a layer has none; whole panels.
    bias: Block,
    bits: Bits,
    /// Whether blocks are spread before they are rounded.
    is_spread: bool,
    outputs: usize,
    inputs: usize,
    /// Outputs of a panel.
    width: usize,
    next: Next,
}

/// One panel.
pub(super) struct Panel<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) scales: &'a [u8],
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
    /// Rounds and packs parts that have been checked; `is_spread` as of [`super::gains_by_spreading`], with expected squares of inputs
    /// where these are known. A weight that is not finite makes all results of its output NaN.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(
        (token, pool): (Token, &Pool),
        parts: &[LinearPart<HostTensor>],
        (bits, is_spread, squares): (Bits, bool, Option<&[f32]>),
        (outputs, inputs): (usize, usize),
    ) -> Result<Self> {
        let width = DotToken::of(token).run(Width);
        let count = outputs.div_ceil(width);
        let mut matrix = Self {
            panels: Block::new(0)?,
            scales: Block::new(0)?,
            bias: bias(parts, count * width)?,
            bits,
            is_spread,
            outputs,
            inputs,
            width,
            next: Next::default(),
        };
        matrix.panels = Block::new(count.saturating_mul(matrix.panel_bytes() / size_of::<f32>()))?;
        matrix.scales = Block::new(count.saturating_mul(matrix.scale_bytes() / size_of::<f32>()))?;
        let feedback = squares.filter(|_| is_spread).map(Feedback::new);
        match bits {
            Bits::Eight => matrix.pack::<Eight>((token, pool), parts, feedback.as_ref()),
            Bits::Four => matrix.pack::<Four>((token, pool), parts, feedback.as_ref()),
        }
        Ok(matrix)
    }

    fn pack<W: Weights>(
        &mut self,
        (token, pool): (Token, &Pool),
        parts: &[LinearPart<HostTensor>],
        feedback: Option<&Feedback>,
    ) {
        let token = DotToken::of(token);
        let (inputs, blocks, bytes) = (self.inputs, self.blocks(), self.panel_bytes());
        let numbers = self.scale_bytes() / size_of::<W::Scale>();
        let (width, is_spread) = (self.width, self.is_spread);
        let (panels, scales) = (Shareable(self.panels.as_mut_ptr()), Shareable(self.scales.as_mut_ptr()));
        pool.run(self.count(), |_, claims| {
            let mut row = vec![0.0; blocks * BLOCK];
            for panel in claims {
                // SAFETY: each panel is claimed once, panels do not overlap, and there are `count` of them in the blocks.
                let (out, scales) = unsafe {
                    let first = panels.get().cast::<u8>().add(panel * bytes);
                    let scales = scales.get().cast::<W::Scale>().add(panel * numbers);
                    (std::slice::from_raw_parts_mut(first, bytes), std::slice::from_raw_parts_mut(scales, numbers))
                };
                let (first, row, weights) = (panel * width, &mut row, PhantomData::<W>);
                token.run(PackPanel { parts, first, inputs, is_spread, feedback, row, out, scales, weights });
            }
        });
    }

    /// What a panel holds.
    pub(super) fn panel(&self, panel: usize) -> Panel<'_> {
        let part = |block: &'_ Block, bytes: usize| {
            // SAFETY: the block has as many bytes as its f32, and any bits are a u8.
            let all = unsafe { std::slice::from_raw_parts(block.as_ptr().cast::<u8>(), size_of_val(&**block)) };
            &all[panel * bytes..][..bytes]
        };
        Panel { bytes: part(&self.panels, self.panel_bytes()), scales: part(&self.scales, self.scale_bytes()) }
    }

    /// Where the weights lie.
    pub(crate) fn place(&self) -> Place {
        Place { start: self.panels.as_ptr().addr(), panel: self.panel_bytes(), count: self.count() }
    }

    /// Which weights came next.
    pub(crate) fn next(&self) -> &Next {
        &self.next
    }

    /// A value for each output of all panels.
    pub(super) fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// `values`, one for each output, with zeros behind them up to whole panels.
    pub(super) fn whole_panels(&self, values: &[f32], arena: &Arc<Arena>) -> Result<Buffer> {
        let mut whole = arena.take(self.count() * self.width)?;
        let (first, rest) = whole.split_at_mut(self.outputs);
        first.copy_from_slice(values);
        rest.fill(0.0);
        Ok(whole)
    }

    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    /// Whether rows have to be spread too.
    pub(super) fn is_spread(&self) -> bool {
        self.is_spread
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The number of panels.
    pub(super) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// The number of blocks of inputs.
    pub(super) fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK)
    }

    fn panel_bytes(&self) -> usize {
        let weights = self.blocks() * BLOCK * self.width;
        match self.bits {
            Bits::Eight => weights,
            Bits::Four => weights / 2,
        }
    }

    /// Bytes of a panel's scales.
    fn scale_bytes(&self) -> usize {
        let of_block = match self.bits {
            Bits::Eight => BLOCK / Eight::GROUP * size_of::<<Eight as Weights>::Scale>(),
            Bits::Four => BLOCK / Four::GROUP * size_of::<<Four as Weights>::Scale>(),
        };
        self.blocks() * self.width * of_block
    }
}

struct PackPanel<'a, W: Weights> {
    parts: &'a [LinearPart<HostTensor>],
    /// The first output.
    first: usize,
    inputs: usize,
    is_spread: bool,
    feedback: Option<&'a Feedback>,
    /// Room for an output's blocks, zeros behind its inputs.
    row: &'a mut [f32],
    out: &'a mut [u8],
    /// `[groups][width]`
    scales: &'a mut [W::Scale],
    weights: PhantomData<W>,
}

impl<W: Weights> DotKernel for PackPanel<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let width = 2 * D::F::LANES;
        for o in 0..width {
            decode_output(d.floats(), self.parts, self.first + o, 0, &mut self.row[..self.inputs]);
            for (b, values) in self.row.as_chunks::<BLOCK>().0.iter().enumerate() {
                let mut values = *values;
                let by = if self.is_spread { spread(d, &mut values) } else { 1.0 };
                let (mut scales, mut rounded) = ([0.0; MOST_GROUPS], [0; BLOCK]);
                let scales = &mut scales[..BLOCK / W::GROUP];
                W::round(d, &mut values, self.feedback.map(|f| (f, b)), scales, &mut rounded);
                for (g, scale) in scales.iter().enumerate() {
                    let place = (b * scales.len() + g) * width + o;
                    W::Scale::round(&[scale / by], 1, &mut self.scales[place..=place]);
                }
                for (step, four) in rounded.as_chunks::<4>().0.iter().enumerate() {
                    W::place(*four, self.out, b * BLOCK / 4 + step, (o, width));
                }
            }
        }
    }
}

/// Outputs of a panel: two vectors.
struct Width;

impl DotKernel for Width {
    type Output = usize;

    #[inline(always)]
    fn run<D: Dot>(self, _: D) -> usize {
        2 * D::F::LANES
    }
}
