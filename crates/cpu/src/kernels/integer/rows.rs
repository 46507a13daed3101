//! Rows of activations, rounded to 8 bits with a scale for each row and block of inputs.

use std::marker::PhantomData;
use std::ops::Range;

use super::spread::spread;
use super::{BLOCK, Bits, Eight, Four, MOST_GROUPS, Weights};
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// What there is to know of a row's block beside its bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct About {
    /// What its bytes are multiplied by; NaN if one of its values was NaN or infinite.
    pub(super) scale: f32,
    /// What the sums of each group's products begin with: minus the sum of its bytes times what packed weights are too large by.
    pub(super) starts: [i32; MOST_GROUPS],
}

/// Rows as tiles read them: their bytes as `[panel of rows][block][row][input]` and `[panel of rows][block][row]` of what else
/// there is of each. Behind the last input are zeros before values are spread.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: *mut i8,
    about: *mut About,
    blocks: usize,
    room: PhantomData<&'a mut [f32]>,
}

// SAFETY: pointers into `room`, of which a task writes the part of one panel's block, and which is read when all are
// written.
unsafe impl Send for Packed<'_> {}
// SAFETY: as above.
unsafe impl Sync for Packed<'_> {}

/// The part of a panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    bytes: *mut i8,
    about: *mut About,
    rows: usize,
    room: PhantomData<&'a mut [f32]>,
}

/// Where a tile reads a panel.
#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub(super) bytes: *const i8,
    pub(super) about: *const About,
}

impl<'a> Packed<'a> {
    /// Room for `rows` rows, in f32.
    pub(super) fn len(rows: usize, blocks: usize) -> usize {
        rows * blocks * (BLOCK + size_of::<About>()) / size_of::<f32>()
    }

    /// Divides `room`, which has [`Packed::len`].
    pub(super) fn new(room: &'a mut [f32], rows: usize, blocks: usize) -> Self {
        let (bytes, about) = room.split_at_mut(rows * blocks * BLOCK / size_of::<f32>());
        assert!(size_of_val(about) >= rows * blocks * size_of::<About>(), "room for {rows} rows of {blocks}");
        Self { bytes: bytes.as_mut_ptr().cast(), about: about.as_mut_ptr().cast(), blocks, room: PhantomData }
    }

    /// The panel of `rows` rows from row `first` on, which are among those there is room for.
    pub(super) fn panel(self, Range { start: first, end }: Range<usize>) -> Panel<'a> {
        let rows = end - first;
        let before = first * self.blocks;
        let (bytes, about) = (self.bytes.wrapping_add(before * BLOCK), self.about.wrapping_add(before));
        Panel { bytes, about, rows, room: PhantomData }
    }
}

impl Panel<'_> {
    pub(super) fn as_ptrs(self) -> Pointers {
        Pointers { bytes: self.bytes, about: self.about }
    }
}

/// Fills a panel's block with that of the rows of `x`.
pub(super) struct Quantize<'a> {
    /// `[rows, inputs]`, all rows.
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
    pub(super) out: Packed<'a>,
    /// The panel's.
    pub(super) rows: Range<usize>,
    pub(super) block: usize,
    pub(super) bits: Bits,
    /// Whether weights are spread.
    pub(super) is_spread: bool,
}

impl DotKernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        match self.bits {
            Bits::Eight => self.fill::<D, Eight>(d, D::OFFSET_8),
            Bits::Four => self.fill::<D, Four>(d, D::OFFSET_4),
        }
    }
}

impl Quantize<'_> {
    /// With what is added to weights when they are packed.
    #[inline(always)]
    fn fill<D: Dot, W: Weights>(self, d: D, offset: i32) {
        const { assert!(BLOCK / W::GROUP <= MOST_GROUPS) }
        let Panel { bytes, about, rows, .. } = self.out.panel(self.rows.clone());
        let inputs = self.block * BLOCK..self.inputs.min((self.block + 1) * BLOCK);
        for (r, row) in self.rows.enumerate() {
            let mut values = whole_block(&self.x[row * self.inputs..][inputs.clone()]);
            if self.is_spread {
                spread(d, &mut values);
            }
            // One scale for all groups: to find one for each would take as long as all else here.
            let Extent { most, not_finite } = Extent::of(d, &values);
            let place = self.block * rows + r;
            // SAFETY: `place` is one of the panel's rows and blocks, which is this task's, and any bits are a block's bytes.
            unsafe {
                let out = &mut *bytes.add(place * BLOCK).cast::<[i8; BLOCK]>();
                narrow(d, &values, super::inverse(most, 127.0), out);
                let mut starts = [0; MOST_GROUPS];
                for (start, group) in starts.iter_mut().zip(out.chunks_exact(W::GROUP)) {
                    *start = -offset * group.iter().map(|&byte| i32::from(byte)).sum::<i32>();
                }
                about.add(place).write(About { scale: most / 127.0 + not_finite, starts });
            }
        }
    }
}

/// `values`, of which there are at most `BLOCK`, and zeros behind them.
#[inline(always)]
fn whole_block(values: &[f32]) -> [f32; BLOCK] {
    if let Ok(values) = <&[f32; BLOCK]>::try_from(values) {
        *values
    } else {
        let mut whole = [0.0; BLOCK];
        whole[..values.len()].copy_from_slice(values);
        whole
    }
}

/// How large a group's values are.
pub(super) struct Extent {
    /// The largest magnitude.
    pub(super) most: f32,
    /// 0; NaN if a value is NaN or infinite.
    pub(super) not_finite: f32,
}

impl Extent {
    #[inline(always)]
    pub(super) fn of<D: Dot>(d: D, values: &[f32]) -> Self {
        let s = d.floats();
        let (mut most, mut not_finite) = (s.splat(0.0), s.splat(0.0));
        for chunk in values.chunks_exact(D::F::LANES) {
            let magnitude = s.abs(s.get(chunk));
            most = s.max(most, magnitude);
            not_finite = s.mul_add(magnitude, s.splat(0.0), not_finite);
        }
        Self { most: s.largest(most), not_finite: s.sum(not_finite) }
    }
}

/// `values` times `by` in whole numbers, of which none is beyond -127 or 127.
#[inline(always)]
pub(super) fn narrow<D: Dot>(d: D, values: &[f32], by: f32, out: &mut [i8]) {
    let (s, lanes) = (d.floats(), D::F::LANES);
    for (chunk, out) in values.chunks_exact(lanes).zip(out.chunks_exact_mut(lanes)) {
        // SAFETY: `out` has room for a vector's bytes.
        unsafe { d.narrow(s.mul(s.get(chunk), s.splat(by)), out.as_mut_ptr()) };
    }
}
